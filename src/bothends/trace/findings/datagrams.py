"""Rules about single datagrams: truncated, too large, or not sent because of an error. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import SENDING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.udp_requests import is_group
from bothends.trace.model import Call, Packet, Socket, SocketAddress

# Bytes of a UDP datagram: over IPv4 65,535 without the headers of IP and UDP, over IPv6 without that of UDP.
MAX_PAYLOAD: Final = {"inet": 65_507, "inet6": 65_527}
COMPARED_BYTES: Final = 16
_LATER_CALLS: Final = 200  # calls after a failed send, among which the program sends the data otherwise


def truncated_datagram(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a datagram that is longer than the receive buffer: the kernel discards the rest."""
    for socket in trace_index.sockets("datagram", "seqpacket"):
        for receive in trace_index.receives(socket):
            causes = [link.cause for link in trace_index.trace.causes_of(receive.number)]
            size = max((_event_size(trace_index, each) for each in causes), default=0)
            if size <= receive.size or _knows_size(trace_index, receive):
                continue
            yield Finding(
                "truncated-datagram",
                "A datagram was truncated",
                f"{capitalized(name_of(trace_index, receive.process))} received {receive.size:,} bytes of a "
                f"datagram of {size:,}, because its buffer has room for {receive.size:,}. The kernel "
                "discarded the rest.",
                "Pass recv() a buffer for the longest datagram that you allow (65,535 bytes hold any), "
                "and check MSG_TRUNC.",
                (*causes, receive.number),
                process=receive.process,
                sockets=(socket.number,),
                in_c="char buffer[65535]; n = recvfrom(fd, buffer, sizeof buffer, 0, ...);",
                in_python="data, address = sock.recvfrom(65535)",
            )
            break


def _knows_size(trace_index: TraceIndex, receive: Call) -> bool:
    """Return whether the program can see that the datagram was longer, or wants nothing but its arrival."""
    if receive.name in ("recvmsg", "recvmmsg") or "MSG_TRUNC" in receive.flags or not receive.requested:
        return True
    calls = trace_index.calls_by_process[receive.process]
    at = bisect_left(calls, receive.at, key=lambda call: call.at)
    before = next(
        (each for each in reversed(calls[max(0, at - 5) : at]) if each.socket == receive.socket), None
    )
    return before is not None and "MSG_PEEK" in before.flags


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
            payload = MAX_PAYLOAD.get(socket.family)
            limit = f"a UDP datagram holds {payload or 0:,} bytes at most"
            remedy = (
                "Split the data into numbered datagrams of 1,200 bytes or so, which no path has to "
                "fragment, or use TCP. Check the result of each send."
            )
            if payload is None:
                limit = "the send buffer (SO_SNDBUF) must hold all of it"
                remedy = "Enlarge SO_SNDBUF, split the data, or use a stream socket. Check each result."
            elif size <= payload:
                limit = "the path or the interface takes no datagram of that size"
            yield Finding(
                "datagram-too-large",
                "A datagram is too large to be sent",
                f"{call.name} of {size:,} bytes by {name_of(trace_index, call.process)} failed with "
                f"EMSGSIZE, and nothing was sent: {limit}.",
                remedy,
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
    """Return whether the program sent the same data otherwise: in parts, elsewhere, or over TCP.

    What it sent before counts if it was no smaller.
    """
    calls = trace_index.calls_by_process[call.process]
    at = bisect_left(calls, call.at, key=lambda each: each.at)
    start = call.data[:COMPARED_BYTES]
    return any(
        each.name in SENDING
        and not each.failed
        and each.size > 0
        and each.data[:COMPARED_BYTES] == start
        and (each.at > call.at or each.size >= (call.requested or len(call.data)))
        for each in calls[max(0, at - _LATER_CALLS) : at + _LATER_CALLS]
    )


_SEND_ERRORS: Final = {
    "EACCES": (
        "a broadcast address needs the option SO_BROADCAST",
        (
            "Set SO_BROADCAST before you send to a broadcast address. If no broadcast is meant: inet_addr() "
            "returns 255.255.255.255 for a text that is not an address, such as a name."
        ),
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


def _reason(call: Call, target: SocketAddress | None) -> tuple[str, str, str, str]:
    """Return why a send failed, the remedy, and the lines in C and in Python; empty for no known reason."""
    if call.error == "EINVAL" and target is None:
        return (
            "no address was given to it: its length is 0",
            "Give the size of the address, and set the length to it before each recvfrom() that stores one.",
            "len = sizeof from; n = recvfrom(fd, buf, size, 0, (struct sockaddr *)&from, &len);",
            "data, address = sock.recvfrom(2048); sock.sendto(data, address)",
        )
    if call.error == "EINVAL" and target is not None and target.port == 0:
        return (
            "the port is 0",
            "Set the port of the address before you send to it.",
            "to.sin_port = htons(port);",
            "sock.sendto(data, (host, port))",
        )
    if call.error == "EINVAL" and target is not None and target.host.lower().startswith("fe80"):
        return (
            "a link-local address needs the number of the interface",
            "Add the interface to the address (fe80::1%eth0), as getaddrinfo() does.",
            'to.sin6_scope_id = if_nametoindex("eth0");',
            'sock.sendto(data, ("fe80::1%eth0", port))',
        )
    if call.error == "EACCES" and target is not None and not is_group(target):
        return "", "", "", ""  # a firewall's rule, perhaps
    return _SEND_ERRORS.get(call.error, ("", "", "", ""))


def datagram_not_sent(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a datagram that was not sent because of an error in its address or in the socket's options."""
    for socket in trace_index.sockets("datagram"):
        sends = [call for call in trace_index.calls_by_socket[socket.number] if call.name in SENDING]
        for call in sends:
            target = call.address or socket.peer
            reason, remedy, in_c, in_python = _reason(call, target)
            if not reason or _was_split(trace_index, call):
                continue
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
