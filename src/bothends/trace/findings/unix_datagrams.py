"""Rules about datagrams between UNIX sockets. Pure.

1. A datagram socket without an address of its own (no bind()) can't receive a reply: the receiver sees no
   address to reply to (unix(7)).
2. A datagram is never discarded: while the receiver's queue is full (net.unix.max_dgram_qlen, 10 by default),
   the send blocks, or fails with EAGAIN.
"""

from __future__ import annotations

from collections.abc import Iterator

from bothends.trace.capture.calls import RECEIVING, SENDING
from bothends.trace.findings.base import BLOCKED_NS, Finding, TraceIndex
from bothends.trace.findings.endpoints import Binding, bound_sockets, capitalized, name_of
from bothends.trace.findings.udp_requests import datagram_traffic
from bothends.trace.model import Call, Socket, SocketAddress
from bothends.trace.rendering import formatting

_MIN_LOST = 5  # datagrams: fewer are no sign of a mistake in a program that accepts losses


def unix_client_unnamed(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a client that waits for a reply on a UNIX datagram socket without an address."""
    for socket in _unix_sockets(trace_index):
        sends = trace_index.sends(socket)
        has_address = socket.local is not None and bool(socket.local.host)
        if not sends or has_address or trace_index.receives(socket):
            continue
        calls = trace_index.calls_by_socket[socket.number]
        is_pair = bool(socket.peer_inode) and not any(call.name == "connect" for call in calls)
        if is_pair or any(call.name in ("bind", "socketpair") and not call.failed for call in calls):
            continue
        if trace_index.has_option(socket, "SO_PASSCRED", trace_index.end):
            continue
        waits = [call for call in calls if call.name in RECEIVING]
        waits += [
            call
            for call in datagram_traffic(trace_index).waits_by_socket[socket.number]
            if call.sockets == (socket.number,) and "OUT" not in "".join(call.wanted_events)
        ]
        wait = next(
            (
                call
                for call in waits
                if call.at > sends[0].at and (call.until or trace_index.end) - call.at >= BLOCKED_NS
            ),
            None,
        )
        if wait is None:
            continue
        target = sends[0].address or socket.peer
        name = capitalized(name_of(trace_index, sends[0].process))
        yield Finding(
            "unix-client-unnamed",
            "The client's UNIX datagram socket has no address, so the server cannot reply to it",
            f"{name} sends {formatting.quoted(sends[0].data, sends[0].size, 24)} to {target} and has waited "
            f"for a reply for {formatting.duration((wait.until or trace_index.end) - wait.at)}, but it "
            "has not called bind(): the receiver sees no address to which it could reply.",
            "Bind the client's socket to a path of its own, or to an abstract address, before it sends.",
            (sends[0].number, wait.number),
            process=sends[0].process,
            sockets=(socket.number,),
            in_c="bind(fd, &(struct sockaddr_un){AF_UNIX}, sizeof(sa_family_t));  /* chosen by Linux */",
            in_python='sock.bind(f"/tmp/client-{os.getpid()}.sock")  # or sock.bind("") on Linux',
        )


def unix_queue_full(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a sender that is blocked because the receiver does not read, or that drops what does not fit."""
    for socket in _unix_sockets(trace_index):
        calls = [call for call in trace_index.calls_by_socket[socket.number] if call.name in SENDING]
        blocked = next(
            (call for call in calls if call.until is None and trace_index.end - call.at >= BLOCKED_NS), None
        )
        if blocked is not None:
            yield _blocked(trace_index, socket, blocked)
            continue
        failed = [call for call in calls if call.error == "EAGAIN"]
        sent = {call.data for call in calls if not call.failed}
        lost = [call for call in failed if call.data not in sent]
        if len(lost) < _MIN_LOST or len(lost) * 10 < len(calls):
            continue
        name = capitalized(name_of(trace_index, lost[0].process))
        yield Finding(
            "unix-queue-full",
            "Datagrams were not sent: the receiver's queue was full",
            f"{len(lost):,} of the {len(calls):,} sends of {name[:1].lower()}{name[1:]} to "
            f"{lost[0].address or socket.peer} failed with EAGAIN, and the program did not send these "
            "datagrams again. A UNIX datagram socket holds only some unread ones (net.unix.max_dgram_qlen).",
            "On EAGAIN wait with poll() until the socket is writable, then send again; or let it block.",
            (calls[0].number, *(call.number for call in lost[:3])),
            process=lost[0].process,
            sockets=(socket.number,),
            in_c="poll(&(struct pollfd){fd, POLLOUT}, 1, -1);  /* then send again */",
            in_python="select.select([], [sock], [])  # then send again",
        )


def _blocked(trace_index: TraceIndex, socket: Socket, blocked: Call) -> Finding:
    target = blocked.address or socket.peer
    there = _receiver(trace_index, target, blocked.at)
    receiver = capitalized(name_of(trace_index, there.process)) if there is not None else "The receiver"
    reads = trace_index.receives(there.socket) if there is not None else []
    last = reads[-1] if reads else None
    ago = formatting.duration(trace_index.end - (last.until or last.at)) if last is not None else ""
    read = f"received the last datagram {ago} ago" if last is not None else "has received none"
    return Finding(
        "unix-queue-full",
        "The sender is blocked: the receiver does not read its datagrams",
        f"{capitalized(name_of(trace_index, blocked.process))} has been blocked in {blocked.name}() "
        f"to {target} for {formatting.duration(trace_index.end - blocked.at)}: the queue is full. "
        f"{receiver} {read} and does not read the others.",
        "Let the receiver read all the time, or set the sender's socket to non-blocking and handle EAGAIN.",
        (*((last.number,) if last is not None else ()), blocked.number),
        process=there.process if there is not None else blocked.process,
        sockets=(socket.number, *((there.socket.number,) if there is not None else ())),
        in_c="while ((n = recv(fd, buffer, sizeof buffer, 0)) >= 0) handle(buffer, n);",
        in_python="while True: handle(sock.recv(65536))",
    )


def unix_receiver_gone(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find datagrams to a UNIX socket whose receiver has closed it, or bound it later or elsewhere."""
    bound = [each for each in bound_sockets(trace_index, "datagram") if each.socket.family == "unix"]
    seen = set[tuple[int, str]]()
    for socket in _unix_sockets(trace_index):
        calls = trace_index.calls_by_socket[socket.number]
        target: SocketAddress | None = None
        for call in calls:
            if call.name not in SENDING and call.name != "connect":
                continue
            target = call.address or target
            if call.error not in ("ECONNREFUSED", "ENOENT") or target is None or not target.host:
                continue
            key = call.process, target.host
            if key in seen or _sent_later(trace_index, call, target):
                break
            finding = _unreachable(trace_index, call, target, bound)
            if finding is not None:
                seen.add(key)
                yield finding
            break


def _unreachable(
    trace_index: TraceIndex, call: Call, target: SocketAddress, bound: list[Binding]
) -> Finding | None:
    same = [each for each in bound if each.address.host == target.host]
    closed = [each for each in same if each.until is not None and each.until <= call.at]
    later = [each for each in same if each.since > call.at]
    there = [each for each in same if each.is_open_at(call.at)]
    sender = capitalized(name_of(trace_index, call.process))
    failed = f"{call.name} of {sender[:1].lower()}{sender[1:]} to {target} failed with {call.error}"
    remedy = "Connect again after ECONNREFUSED: a connected socket stays with the socket that is gone."
    if closed and (there or later):
        text = (
            f"{failed}: {name_of(trace_index, closed[-1].process)} had closed the socket there "
            f"{formatting.duration(call.at - (closed[-1].until or 0))} before, and bound a new one."
        )
    elif closed:
        text = (
            f"{failed}: {name_of(trace_index, closed[-1].process)} had closed the socket there "
            f"{formatting.duration(call.at - (closed[-1].until or 0))} before."
        )
        remedy = (
            "Keep the receiver's socket open as long as others may send, and connect again after an error."
        )
    elif later:
        text = (
            f"{failed}: {name_of(trace_index, later[0].process)} bound that path "
            f"{formatting.duration(later[0].since - call.at)} later."
        )
        remedy = "Start the receiver first, or try again after ENOENT and ECONNREFUSED."
    else:
        return None
    evidence = closed[-1:] or later[:1]
    return Finding(
        "unix-receiver-gone",
        "No socket had that path when the datagram was sent",
        text,
        remedy,
        tuple(sorted({evidence[0].call.number, call.number})),
        process=call.process,
        sockets=tuple(each for each in (call.socket, evidence[0].socket.number) if each is not None),
        in_c="if (send(fd, data, size, 0) < 0 && errno == ECONNREFUSED) connect(fd, address, length);",
        in_python="except ConnectionRefusedError: sock.connect(path)",
    )


def _sent_later(trace_index: TraceIndex, failed: Call, target: SocketAddress) -> bool:
    """Return whether the process sent to the path, or connected to it, after the error."""
    for call in trace_index.calls_by_process[failed.process]:
        if call.at <= failed.at or call.failed or call.socket is None:
            continue
        if (call.name in SENDING and call.size) or call.name == "connect":
            address = call.address or trace_index.trace.sockets[call.socket].peer
            if address == target:
                return True
    return False


def _receiver(trace_index: TraceIndex, target: SocketAddress | None, at: int) -> Binding | None:
    for each in bound_sockets(trace_index, "datagram"):
        if each.socket.family == "unix" and each.address == target and each.is_open_at(at):
            return each
    return None


def _unix_sockets(trace_index: TraceIndex) -> Iterator[Socket]:
    return (each for each in trace_index.sockets("datagram") if each.family == "unix")
