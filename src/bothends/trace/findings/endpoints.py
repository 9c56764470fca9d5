"""Addresses that programs bind, and their attempts to connect to addresses: shared by several rules. Pure.

An attempt to connect may end long after connect() has returned: a non-blocking one returns EINPROGRESS, and
the outcome shows in SO_ERROR, in another connect(), in the first transfer, or in packets only.
"""

from __future__ import annotations

import errno
import itertools
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from bothends.trace.capture.calls import ACCEPTING, MOVING, RECEIVING, WAITING
from bothends.trace.findings.base import TraceIndex, listens_at
from bothends.trace.model import Call, Packet, Socket, SocketAddress

# The programs that run source text: what others send is not from a compiled program.
INTERPRETERS: Final = (
    "python", "pypy", "node", "nodejs", "java", "ruby", "perl", "php", "sh", "bash", "dash",
)  # fmt: skip
# The first of the arguments of execve(), as strace shows them, or of a command line.
_PROGRAM: Final = re.compile(r'\["([^"]*)"|"?([^"\s]+)')
IN_PROGRESS: Final = frozenset({"EINPROGRESS", "EALREADY", "EAGAIN"})
# Errors of a transfer on a socket that is not connected.
NOT_CONNECTED: Final = frozenset(
    {"ECONNREFUSED", "ENOTCONN", "EPIPE", "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH", "EADDRNOTAVAIL"}
)
REFUSED: Final = frozenset({"ECONNREFUSED", "ENOENT"})


def name_of(trace_index: TraceIndex, process: int) -> str:
    """Return how a sentence refers to a process: "the server", or its role."""
    known = trace_index.process(process)
    if known.role in ("server", "client"):
        return f"the {known.role}"
    return known.role or f"process {known.pid}"


def holder_name(trace_index: TraceIndex, socket: int | None, at: int, otherwise: str) -> str:
    """Return how a sentence refers to the process that holds a socket at a time, or `otherwise`."""
    holders = trace_index.holders_at(socket, at) if socket is not None else {}
    return name_of(trace_index, min(holders)) if holders else otherwise


def runs(trace_index: TraceIndex, process: int, *programs: str) -> bool:
    """Return whether a process runs one of these programs, of any version: python3.11 is python."""
    return executable_of(trace_index, process).rstrip("0123456789.") in programs


def executable_of(trace_index: TraceIndex, process: int) -> str:
    """Return the name of the program that a process runs, without its path; "" if it is not known."""
    words = _PROGRAM.match(trace_index.process(process).command)
    return (words[1] or words[2]).rpartition("/")[2] if words is not None else ""


def runs_node(trace_index: TraceIndex, process: int) -> bool:
    """Return whether a process is Node.js."""
    return runs(trace_index, process, "node", "nodejs")


def capitalized(text: str) -> str:
    """Return a text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def program_of(trace_index: TraceIndex, process: int) -> str:
    """Return the program a process belongs to: the role without the number of a child process."""
    known = trace_index.process(process)
    return known.role.partition("/")[0] or f"process {known.pid}"


def closed_at(trace_index: TraceIndex, socket: int) -> int | None:
    """Return when the last process that used a socket closed it or exited; None if it stayed open."""
    closes: dict[int, int | None] = {}
    for call in trace_index.calls_by_socket[socket]:
        if call.error == "EBADF":
            continue  # the descriptor was closed before
        is_close = call.name == "close" and not call.failed
        closes[call.process] = (call.until or call.at) if is_close else None
    latest = 0
    for process, at in closes.items():
        ended = at if at is not None else trace_index.ended_at(process)
        if ended is None:
            return None
        latest = max(latest, ended)
    if not latest or trace_index.holders_at(socket, latest):
        return None
    return latest


@dataclass(frozen=True, slots=True)
class Binding:
    """An address that a socket has from `since` until `until` (None: to the end).

    `call` made it reachable. `only_ipv6`: its address is ::, and IPV6_V6ONLY is set.
    """

    socket: Socket
    address: SocketAddress
    call: Call
    since: int
    until: int | None
    only_ipv6: bool = False

    @property
    def process(self) -> int:
        """The number of the process that called."""
        return self.call.process

    def is_open_at(self, at: int) -> bool:
        """Return whether the socket has the address at a time."""
        return self.since <= at and (self.until is None or at < self.until)

    def is_reached_by(self, target: SocketAddress) -> bool:
        """Return whether it is the address that a connection or a datagram to `target` finds."""
        if target.port is None:
            return self.address.port is None and self.address.host == target.host
        target = local_target(target)
        return listens_at(self.address, target) and not (self.only_ipv6 and ":" not in target.host)


def local_target(target: SocketAddress) -> SocketAddress:
    """Return the address that the kernel uses for a target: 0.0.0.0 and :: mean this machine."""
    if target.host == "0.0.0.0":
        return target._replace(host="127.0.0.1")
    return target._replace(host="::1") if target.host == "::" else target


@lru_cache(maxsize=1)
def listeners(trace_index: TraceIndex) -> list[Binding]:
    """Return the sockets that listen, in order."""
    return [
        Binding(
            socket,
            socket.local,
            call,
            call.until or call.at,
            closed_at(trace_index, socket.number),
            socket.local.host == "::" and _is_only_ipv6(trace_index, socket),
        )
        for socket, call in trace_index.listeners()
        if socket.local is not None
    ]


def _is_only_ipv6(trace_index: TraceIndex, socket: Socket) -> bool:
    values = [
        call.arguments[3]
        for call in trace_index.calls_by_socket[socket.number]
        if call.name == "setsockopt" and "IPV6_V6ONLY" in call.arguments and not call.failed
    ]
    return bool(values) and values[-1] != "[0]"


def bound_sockets(trace_index: TraceIndex, *kinds: str) -> list[Binding]:
    """Return the sockets of these kinds that bind() gave an address, in order."""
    found = []
    for call in trace_index.calls_named("bind"):
        if call.failed or call.result is None or call.socket is None:
            continue
        socket = trace_index.trace.sockets[call.socket]
        address = socket.local if call.address is None or not call.address.port else call.address
        if socket.kind in kinds and address is not None and socket.family in ("inet", "inet6", "unix"):
            until = closed_at(trace_index, socket.number)
            found.append(Binding(socket, address, call, call.until or call.at, until))
    return found


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt to connect a stream socket.

    `error` is an errno's name if it failed, and `shown_by` the event that showed the outcome. `is_connected`:
    the handshake is complete. `was_asked`: the program asked for the outcome. `waits` are the calls that
    waited for the socket, `transfers` those that tried to send or receive before the outcome was known.
    """

    connect: Call
    socket: Socket
    target: SocketAddress
    error: str
    is_connected: bool
    shown_by: Call | Packet | None
    was_asked: bool
    waits: tuple[Call, ...]
    transfers: tuple[Call, ...]

    @property
    def process(self) -> int:
        """The number of the process that connects."""
        return self.connect.process

    @property
    def was_in_progress(self) -> bool:
        """Whether connect() returned before the handshake was complete."""
        return self.connect.error in IN_PROGRESS


@lru_cache(maxsize=1)
def attempts(trace_index: TraceIndex) -> list[Attempt]:
    """Return the attempts to connect stream sockets, in order."""
    waits: dict[int, list[Call]] = defaultdict(list)
    for call in trace_index.calls_named(*WAITING):
        for number in call.sockets:
            waits[number].append(call)
    found = []
    pending: set[int] = set()
    for call in trace_index.calls_named("connect"):
        if call.address is None or call.socket is None:
            continue
        socket = trace_index.trace.sockets[call.socket]
        is_address = call.address.port is not None or socket.family == "unix"
        if socket.kind not in ("stream", "seqpacket") or not is_address or socket.number in pending:
            continue
        if call.error in IN_PROGRESS and socket.family != "unix":
            pending.add(socket.number)
        found.append(_attempt(trace_index, call, socket, waits[socket.number]))
    return found


def _attempt(trace_index: TraceIndex, connect: Call, socket: Socket, waits: list[Call]) -> Attempt:
    target, transfers = connect.address, list[Call]()
    assert target is not None
    if connect.error not in IN_PROGRESS or socket.family == "unix":
        done = connect.result is not None or connect.failed
        error = connect.error if not connect.error.startswith("ERESTART") else ""
        return Attempt(
            connect, socket, target, error, connect.result == 0, connect if done else None, True, (), ()
        )
    own = [each for each in waits if (each.until or trace_index.end) >= connect.at]
    error, connected, asked = "", False, False
    shown: Call | Packet | None = None
    for call, following in itertools.pairwise([*trace_index.later_calls(connect), None]):
        assert call is not None
        if call.name == "close":
            break
        if call.name == "getpeername" and (following is None or following.name == "close"):
            continue  # Python's warning about a socket that was not closed
        if call.name == "epoll_ctl":
            own.append(call)
        outcome = _outcome(call)
        asked = asked or outcome == "asked"
        if outcome == "early":
            transfers.append(call)
        if outcome not in ("connected", "failed"):
            continue
        asked = asked or call.name not in MOVING
        connected, shown = outcome == "connected", call
        error = "" if connected else _error_of(call)
        transfers += [call] if call.name in MOVING else []
        break
    if shown is None:
        for packet in trace_index.packets_to[socket.number]:
            if "RST" in packet.flags or packet.flags == ("SYN", "ACK"):
                connected, shown = "RST" not in packet.flags, packet
                error = "" if connected else "ECONNREFUSED"
                break
        connected = connected or (shown is None and trace_index.peer_of(socket.number) is not None)
    return Attempt(connect, socket, target, error, connected, shown, asked, tuple(own), tuple(transfers))


def _outcome(call: Call) -> str:
    """Return what a call shows of a connection in progress: "connected", "failed", "asked", "early" or ""."""
    if call.name == "getsockopt" and "SO_ERROR" in call.arguments and not call.failed:
        return "failed" if _error_of(call) else "connected"
    if call.name == "connect":
        if call.result == 0 or call.error == "EISCONN":
            return "connected"
        return "asked" if call.error in IN_PROGRESS else "failed"
    if call.name == "getpeername":
        return "asked" if call.failed else "connected"
    if call.name in MOVING:
        if call.error in NOT_CONNECTED:
            return "failed"
        if not call.failed and call.result is not None:
            return "connected"
        return "early"
    return ""


def _error_of(call: Call) -> str:
    """Return the errno that a call returned, or that SO_ERROR had; none if the connection is complete."""
    if call.name != "getsockopt":
        return call.error
    value = call.arguments[3].strip("[]") if len(call.arguments) > 3 else ""
    if value.isdigit():
        return errno.errorcode.get(int(value), value) if int(value) else ""
    return value if value.startswith("E") else ""


@lru_cache(maxsize=1)
def _successes(trace_index: TraceIndex) -> dict[tuple[str | int, SocketAddress | int | None], int]:
    """Return when a program last began to connect to a port or path, and a process at all, successfully."""
    latest: dict[tuple[str | int, SocketAddress | int | None], int] = {}
    for each in attempts(trace_index):
        if each.is_connected:
            at = each.connect.at
            place = each.target.port if each.target.port is not None else each.target
            keys = (program_of(trace_index, each.process), place), (each.process, None)
            latest.update({key: max(at, latest.get(key, 0)) for key in keys})
    return latest


def has_recovered(trace_index: TraceIndex, failed: Attempt) -> bool:
    """Return whether the program connected otherwise: to the same port, or to another address later.

    An earlier connection to the same port counts only if the program then ended without an error: it may
    have waited for the server to stop.
    """
    if connects_later(trace_index, failed):
        return True
    place = failed.target.port if failed.target.port is not None else failed.target
    same = (program_of(trace_index, failed.process), place) in _successes(trace_index)
    return same and not failed.is_connected and trace_index.process(failed.process).status == 0


def connects_later(trace_index: TraceIndex, failed: Attempt) -> bool:
    """Return whether the program connected later: to the same port, or the same process to any address."""
    place = failed.target.port if failed.target.port is not None else failed.target
    same = _successes(trace_index).get((program_of(trace_index, failed.process), place), 0)
    return max(same, _successes(trace_index).get((failed.process, None), 0)) > failed.connect.at


@lru_cache(maxsize=1)
def _waited_for(trace_index: TraceIndex) -> frozenset[int]:
    return frozenset(number for call in trace_index.calls_named(*WAITING) for number in call.sockets)


def is_read(trace_index: TraceIndex, socket: int) -> bool:
    """Return whether any program reads, accepts or waits for a socket."""
    return socket in _waited_for(trace_index) or any(
        call.name in RECEIVING | ACCEPTING or call.name == "epoll_ctl"
        for call in trace_index.calls_by_socket[socket]
    )


def is_used(trace_index: TraceIndex, binding: Binding) -> bool:
    """Return whether a listener has accepted a connection, or completed the handshake of one."""
    calls = trace_index.calls_by_socket[binding.socket.number]
    if any(call.name in ACCEPTING and call.created_id is not None for call in calls):
        return True
    for each in attempts(trace_index):
        at = each.connect.until or each.connect.at
        if each.is_connected and binding.is_reached_by(each.target) and binding.is_open_at(at):
            return True
    return False
