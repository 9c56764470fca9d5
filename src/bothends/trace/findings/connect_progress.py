"""Rules about connect(): connections in progress, errors that a program ignores, and used-up ports. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import MOVING, RECEIVING, SENDING, WAITING
from bothends.trace.findings.base import BLOCKED_NS, Finding, TraceIndex
from bothends.trace.findings.endpoints import (
    NOT_CONNECTED,
    Attempt,
    attempts,
    capitalized,
    has_recovered,
    listeners,
    name_of,
)
from bothends.trace.model import Call, Packet, SocketAddress
from bothends.trace.rendering import formatting

_WAIT_IN_C: Final = (
    "poll(&(struct pollfd){fd, POLLOUT}, 1, timeout); getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);"
)
_WAIT_IN_PYTHON: Final = (
    "select.select([], [sock], [], timeout); error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)"
)
_FEW_TARGETS: Final = 3
SYN_TRIES: Final = 2  # a SYN that was sent this often had no reply for a second


def connect_not_awaited(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a transfer on a connection in progress that failed: the program did not wait."""
    known = attempts(trace_index)
    for each in known:
        first = each.transfers[0] if each.transfers else None
        if not each.was_in_progress or first is None or not first.failed:
            continue
        waited = any(wait.at < first.at for wait in each.waits)
        if waited or _was_asked_before(trace_index, each, first) or has_recovered(trace_index, each):
            continue
        if each.is_connected and _continues_later(trace_index, first):
            continue
        if first.error == "EAGAIN" and (each.was_asked or any(wait.at > first.at for wait in each.waits)):
            continue  # it tried to send at once, and waits now
        yield Finding(
            "connect-not-awaited",
            "The program uses a connection that is not complete yet",
            f"The non-blocking connect to {each.target} was still in progress (EINPROGRESS) when "
            f"{name_of(trace_index, each.process)} called {first.name} {_after(each.connect, first)} later, "
            f"which failed with {first.error}.",
            "Wait until the socket is writable, and read SO_ERROR: 0 means connected. Only then send.",
            (each.connect.number, first.number),
            process=each.process,
            sockets=(each.socket.number,),
            in_c=_WAIT_IN_C,
            in_python=_WAIT_IN_PYTHON,
        )


def _was_asked_before(trace_index: TraceIndex, attempt: Attempt, transfer: Call) -> bool:
    calls = trace_index.later_calls(attempt.connect)
    return any(
        call.at < transfer.at and (call.name == "connect" or "SO_ERROR" in call.arguments) for call in calls
    )


def _continues_later(trace_index: TraceIndex, call: Call) -> bool:
    """Return whether the program later transferred on the same socket what EAGAIN had prevented."""
    later = trace_index.later_calls(call)
    return any(each.name == call.name and not each.failed and each.result is not None for each in later)


def _after(first: Call, second: Call) -> str:
    return formatting.duration(max(second.at - (first.until or first.at), 0))


def so_error_ignored(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a failed connection whose outcome the program did not ask for before it used the socket."""
    known = attempts(trace_index)
    for each in known:
        failed = next((call for call in each.transfers if call.error in NOT_CONNECTED), None)
        if not each.was_in_progress or failed is None or each.was_asked:
            continue
        waits = [wait for wait in each.waits if wait.at < failed.at]
        if not waits or has_recovered(trace_index, each):
            continue
        yield Finding(
            "so-error-ignored",
            "The program does not read the outcome of a non-blocking connect",
            f"The connection to {each.target} failed, and the wait returned because of that. "
            f"{capitalized(name_of(trace_index, each.process))} did not read SO_ERROR and called "
            f"{failed.name}, which failed with {failed.error}.",
            "A socket whose connection has failed is writable, too. After the wait read SO_ERROR: 0 means "
            "connected; another value is the error.",
            (each.connect.number, waits[-1].number, failed.number),
            process=each.process,
            sockets=(each.socket.number,),
            in_c="getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);",
            in_python="error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)",
        )


def connect_abandoned(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a connection in progress that the program neither completed nor closed, or closed at once."""
    known = attempts(trace_index)
    for each in known:
        uses_ring = trace_index.process(each.process).uses_io_uring
        if not each.was_in_progress or each.was_asked or each.transfers or uses_ring:
            continue
        if has_recovered(trace_index, each) or _has_other_attempt(each, known):
            continue
        if _is_own_listener(trace_index, each):
            continue  # it wakes its own thread in accept()
        close = next((call for call in trace_index.later_calls(each.connect) if call.name == "close"), None)
        timed_out = [wait for wait in each.waits if wait.result == 0 and wait.name in WAITING]
        if each.waits and not (timed_out and close is None):
            continue
        client = name_of(trace_index, each.process)
        ended = trace_index.ended_at(each.process)
        until = (close.at if close is not None else None) or ended or trace_index.end
        waiting = _blocked_peer(trace_index, each, until)
        if timed_out and waiting is None:
            continue
        what = (
            f"{capitalized(client)} waited for it, gave up, and kept the descriptor"
            if timed_out
            else f"{capitalized(client)} did not wait for the outcome, and closed the socket "
            f"{_after(each.connect, close)} later"
            if close is not None
            else f"{capitalized(client)} did not wait for the outcome, and neither used nor closed the "
            f"socket for {formatting.duration(until - each.connect.at)}"
        )
        peer = (
            f", and {name_of(trace_index, waiting.process)} waited {_length(trace_index, waiting)} for data"
            if waiting is not None
            else ""
        )
        evidence = [each.connect.number, *(wait.number for wait in timed_out[-1:])]
        evidence += [call.number for call in (waiting, close) if call is not None]
        outcome = (
            f"The kernel completed the connection{peer}"
            if each.is_connected
            else f"The connection failed later with {each.error}"
            if each.error
            else "The connection was not complete"
        )
        yield Finding(
            "connect-abandoned",
            "The program abandons a connection that is in progress",
            f"The non-blocking connect to {each.target} returned EINPROGRESS. {what}. {outcome}.",
            "EINPROGRESS is not an error: wait until the socket is writable, then read SO_ERROR. To give up, "
            "close the socket.",
            tuple(sorted(evidence)),
            process=each.process,
            sockets=(each.socket.number, *((waiting.socket,) if waiting and waiting.socket else ())),
            in_c=_WAIT_IN_C + "  /* to give up: close(fd) */",
            in_python=_WAIT_IN_PYTHON + "  # to give up: sock.close()",
        )


def _is_own_listener(trace_index: TraceIndex, attempt: Attempt) -> bool:
    return any(
        each.is_reached_by(attempt.target) and each.process == attempt.process
        for each in listeners(trace_index)
    )


def _has_other_attempt(attempt: Attempt, known: list[Attempt]) -> bool:
    """Return whether the process has other attempts in progress: it may have picked one of them."""
    return any(
        each.process == attempt.process and each is not attempt and each.is_connected and each.was_asked
        for each in known
    )


def _blocked_peer(trace_index: TraceIndex, attempt: Attempt, until: int) -> Call | None:
    """Return the call at the other end that waited for data of an abandoned connection."""
    peer = trace_index.peer_of(attempt.socket.number)
    if peer is None:
        return None
    calls = trace_index.calls_by_socket[peer] + [call for call in trace_index.calls if peer in call.sockets]
    waits = [
        call
        for call in calls
        if call.name not in SENDING
        and (call.name in RECEIVING or peer in call.sockets)
        and min(call.until or until, until) - call.at >= BLOCKED_NS
    ]
    return min(waits, key=lambda call: call.at, default=None)


def _length(trace_index: TraceIndex, call: Call) -> str:
    return formatting.duration((call.until or trace_index.end) - call.at)


def connect_error_ignored(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a program that uses a socket although connect() has returned an error."""
    known = attempts(trace_index)
    for each in known:
        if each.was_in_progress or not each.error or has_recovered(trace_index, each):
            continue
        following = next(
            (call for call in trace_index.later_calls(each.connect) if call.process == each.process), None
        )
        for call in trace_index.later_calls(each.connect):
            if call.name in ("close", "connect"):
                break
            if call.name in MOVING and call.failed:
                following = call
                break
        if following is None or following.name not in MOVING or not following.failed:
            continue
        yield Finding(
            "connect-error-ignored",
            "The program ignores that connect() failed",
            f"connect to {each.target} failed with {each.error}, and {name_of(trace_index, each.process)} "
            f"continued: its {following.name} failed with {following.error}.",
            "Check the return value of connect(); on an error report errno, close the socket, and stop.",
            (each.connect.number, following.number),
            process=each.process,
            sockets=(each.socket.number,),
            in_c='if (connect(fd, address, size) < 0) { perror("connect"); exit(1); }',
            in_python="sock.connect(address)  # raises; connect_ex() returns the error instead",
        )


def ports_used_up(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find connect() or bind() with EADDRNOTAVAIL because no ephemeral port is free."""
    known = attempts(trace_index)
    for each in known:
        if each.error != "EADDRNOTAVAIL" or not each.target.port:
            continue
        calls = trace_index.calls_by_socket[each.socket.number]
        if any(call.name == "bind" and call.address and call.address.port for call in calls):
            continue
        before = [
            other
            for other in known
            if other.target == each.target and other.is_connected and other.connect.at < each.connect.at
        ]
        if not before:
            continue
        client = name_of(trace_index, each.process)
        is_open = sum(not _is_closed_before(trace_index, other, each.connect.at) for other in before)
        states = ", ".join(
            text
            for count, text in (
                (is_open, f"{is_open} still open"),
                (
                    len(before) - is_open,
                    f"{len(before) - is_open} closed, which may be in TIME-WAIT for a minute",
                ),
            )
            if count
        )
        yield Finding(
            "ports-used-up",
            "No ephemeral port is left",
            f"connect to {each.target} failed with EADDRNOTAVAIL: every connection to one address needs a "
            f"local port of its own, and {client} had opened {len(before)} ({states}).",
            "Keep a connection and send many requests on it, or use a pool. Close connections that are no "
            "longer needed; let the server close first, so that TIME-WAIT is at its end. The range is "
            "net.ipv4.ip_local_port_range.",
            (before[0].connect.number, before[-1].connect.number, each.connect.number),
            process=each.process,
            sockets=(each.socket.number,),
            in_c="reuse fd for the next request instead of close() and connect()",
            in_python="session = requests.Session()  # keeps connections",
        )
        return


def _is_closed_before(trace_index: TraceIndex, attempt: Attempt, at: int) -> bool:
    calls = trace_index.calls_by_socket[attempt.socket.number]
    return any(call.name == "close" and not call.failed and call.at < at for call in calls)


def _not_an_address(attempt: Attempt, client: str) -> Finding:
    return Finding(
        "connect-unanswered",
        "The client connects to 255.255.255.255, which stands for a text that is not an address",
        f"connect to {attempt.target} failed with {attempt.error}. No host has that address: it is "
        f"INADDR_NONE, which inet_addr() returns for a text that is not an IPv4 address, such as a name. "
        f"Probably {client} did not check it.",
        "Resolve names with getaddrinfo(), which takes addresses as well, and check its result. inet_addr() "
        'takes addresses only: "127.0.0.1", not "localhost".',
        (attempt.connect.number,),
        "inferred",
        "no program connects to the broadcast address on purpose",
        process=attempt.process,
        sockets=(attempt.socket.number,),
        in_c='if (getaddrinfo("localhost", port, &hints, &found) != 0) return 1;   /* then found->ai_addr */',
        in_python="s = socket.create_connection((host, port))",
    )


def connect_unanswered(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a connection attempt to an address that sends no reply at all."""
    known = [each for each in attempts(trace_index) if not each.is_connected]
    repliers = {packet.source for packet in trace_index.packets} if known else set()
    targets: dict[int, set[SocketAddress]] = {}
    for each in known:
        targets.setdefault(each.process, set()).add(each.target)
    for each in known:
        if len(targets[each.process]) > _FEW_TARGETS:
            continue  # it looks for addresses that answer
        if each.error not in ("", "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH"):
            continue
        if has_recovered(trace_index, each) or each.target.port is None:
            continue
        syns = [
            packet
            for packet in trace_index.packets_from[each.socket.number]
            if packet.flags == ("SYN",) and packet.destination == each.target
        ]
        if each.target in repliers or any(packet.lost for packet in syns):
            continue
        timed_out = each.error == "ETIMEDOUT"
        if each.error in ("", "ETIMEDOUT") and len(syns) < SYN_TRIES and not timed_out:
            continue
        client = name_of(trace_index, each.process)
        if each.target.host == "255.255.255.255":
            yield _not_an_address(each, client)
            continue
        shown: Call | Packet = each.shown_by or each.connect
        waited = formatting.duration((each.connect.until or trace_index.end) - each.connect.at)
        sent = f"sent {len(syns)} SYNs" if len(syns) > 1 else "tried to connect"
        text = (
            f"connect to {each.target} failed with {each.error}: the machine has no route to that address, "
            f"or nothing there answers."
            if each.error in ("EHOSTUNREACH", "ENETUNREACH")
            else f"{capitalized(client)} {sent} to {each.target}, and no reply came in {waited}: nothing "
            "has that address, or a firewall discards the packets. A port without a listener refuses at once."
        )
        yield Finding(
            "connect-unanswered",
            "The address that the client connects to does not answer",
            text,
            "Check the address, the route (ip route get ADDRESS) and the firewalls, and set a time limit.",
            tuple(dict.fromkeys((each.connect.number, *(packet.number for packet in syns), shown.number))),
            process=each.process,
            sockets=(each.socket.number,),
            in_c="setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);  /* before connect() */",
            in_python="socket.create_connection(address, timeout=5)",
        )
