"""Rules about single datagrams: truncated, too large, or not sent because of an error. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import SENDING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.model import Call, Packet, Socket

MAX_PAYLOAD: Final = 65_507  # bytes of a UDP datagram over IPv4: 65,535 without the headers of IP and UDP
COMPARED_BYTES: Final = 16


def truncated_datagram(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a datagram that is longer than the receive buffer: the kernel discards the rest."""
    for socket in trace_index.sockets("datagram", "seqpacket"):
        for receive in trace_index.receives(socket):
            causes = [link.cause for link in trace_index.trace.causes_of(receive.number)]
            size = max((_event_size(trace_index, each) for each in causes), default=0)
            if receive.messages or (size <= receive.size and "truncated" not in receive.flags):
                continue
            received = f"The datagram has {size} bytes" if size > receive.size else "The datagram is longer"
            yield Finding(
                "truncated-datagram",
                "A datagram was truncated",
                f"{received}, but the buffer has room for {receive.size}. The kernel discarded the rest.",
                "Pass recv() a buffer for the longest datagram that you allow (65,535 bytes hold any), "
                "and check MSG_TRUNC.",
                (*causes, receive.number),
                process=receive.process,
                sockets=(socket.number,),
                in_c="char buffer[65535]; n = recvfrom(fd, buffer, sizeof buffer, 0, ...);",
                in_python="data, address = sock.recvfrom(65535)",
            )
            break


def _event_size(trace_index: TraceIndex, number: int) -> int:
    event = trace_index.trace.event(number)
    return event.size if isinstance(event, Packet | Call) else 0


def datagram_too_large(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a datagram that the kernel rejected with EMSGSIZE."""
    for socket in trace_index.sockets("datagram", "seqpacket"):
        for call in trace_index.calls_by_socket[socket.number]:
            if call.name not in SENDING or call.error != "EMSGSIZE":
                continue
            if _probes_path(trace_index, socket, call) or _was_split(trace_index, call):
                continue
            size = call.requested if call.requested is not None else len(call.data)
            limit = (
                f"a UDP datagram holds {MAX_PAYLOAD:,} bytes at most"
                if socket.family != "unix"
                else "the send buffer (SO_SNDBUF) must hold all of it"
            )
            yield Finding(
                "datagram-too-large",
                "A datagram is too large to be sent",
                f"{call.name} of {size:,} bytes by {name_of(trace_index, call.process)} failed with "
                "EMSGSIZE, and "
                f"nothing was sent: {limit}.",
                "Split the data into numbered datagrams of 1,200 bytes or so, which no path has to "
                "fragment, or "
                "use TCP. Check the result of each send.",
                (call.number,),
                process=call.process,
                sockets=(socket.number,),
                in_c='if (sendto(fd, data, size, 0, to, length) < 0) perror("sendto");',
                in_python="for at in range(0, len(data), 1200): sock.sendto(data[at:at + 1200], address)",
            )
            break


def _probes_path(trace_index: TraceIndex, socket: Socket, call: Call) -> bool:
    """Return whether the program probes how large a datagram the path allows."""
    return any(
        trace_index.has_option(socket, option, call.at)
        for option in ("IP_MTU_DISCOVER", "IPV6_MTU_DISCOVER", "IPV6_DONTFRAG", "UDP_SEGMENT")
    )


def _was_split(trace_index: TraceIndex, call: Call) -> bool:
    """Return whether the program then sent the same data in smaller datagrams."""
    following = next((each for each in trace_index.later_calls(call) if each.name in SENDING), None)
    return (
        following is not None
        and not following.failed
        and following.data[:COMPARED_BYTES] == call.data[:COMPARED_BYTES]
    )


_SEND_ERRORS: Final = {
    "EACCES": (
        "a broadcast address needs the option SO_BROADCAST",
        "Set SO_BROADCAST before you send to a broadcast address.",
        "setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &(int){1}, sizeof(int));",
        "sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)",
    ),
    "EDESTADDRREQ": (
        "the socket is not connected, and the call names no destination",
        "Pass the destination to sendto(), or call connect() once.",
        "sendto(fd, data, size, 0, (struct sockaddr *)&to, sizeof to);",
        "sock.sendto(data, address)",
    ),
    "EAFNOSUPPORT": (
        "the address is of another family than the socket",
        "Give the socket and the address the same family (AF_INET or AF_INET6).",
        "fd = socket(to.ss_family, SOCK_DGRAM, 0);",
        "sock = socket.socket(family, socket.SOCK_DGRAM)  # the family that getaddrinfo() returned",
    ),
    "EINVAL": (
        "the address is not valid, or not one that the socket's own address can reach",
        (
            "Check the length and the port of the address. A socket that is bound to 127.0.0.1 reaches only "
            "this machine: bind 0.0.0.0 instead."
        ),
        "address.sin_addr.s_addr = htonl(INADDR_ANY);  /* for bind() */",
        'sock.bind(("", port))',
    ),
    "ENETUNREACH": (
        "this machine has no route to that network",
        "Check the address and the routes (ip route get ADDRESS).",
        "",
        "",
    ),
}


def datagram_not_sent(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a datagram that was not sent because of an error in its address or in the socket's options."""
    for socket in trace_index.sockets("datagram"):
        sends = [call for call in trace_index.calls_by_socket[socket.number] if call.name in SENDING]
        for call in sends:
            reason, remedy, in_c, in_python = _SEND_ERRORS.get(call.error, ("", "", "", ""))
            if not reason or _was_split(trace_index, call):
                continue
            target = call.address or socket.peer
            yield Finding(
                "datagram-not-sent",
                "A datagram was not sent",
                f"{capitalized(name_of(trace_index, call.process))}: {call.name}"
                f"{f' to {target}' if target is not None else ''} failed with {call.error}, because "
                f"{reason}.",
                remedy,
                (call.number,),
                process=call.process,
                sockets=(socket.number,),
                in_c=in_c,
                in_python=in_python,
            )
            break
