"""Connections on which nothing moves, and what the threads at both ends do meanwhile. Pure.

A connection stands still from its last transfer until one end closes it, or the trace ends. What each thread
does then shows the cause: a `Standstill` is judged just before it ends, because later events are
consequences.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Final, Literal, TypeAlias

from bothends.trace.capture.calls import ACCEPTING, MOVING, REAPING, RECEIVING, SENDING, SLEEPING, WAITING
from bothends.trace.findings.base import BLOCKED_NS, TraceIndex, listens_at
from bothends.trace.findings.endpoints import runs_node
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting

STANDSTILL_NS: Final = 900_000_000  # nanoseconds: far longer than a healthy peer on one machine takes
RECENT_NS: Final = 300_000_000  # nanoseconds between a call that timed out and the exit of its program
# Nanoseconds: V8 looks for unused memory 8.1 s after a collection (kLongDelayMs and kSlackMs of its memory
# reducer), and Node.js sets the time limit of epoll_wait() for it. 8 s sharp are the program's own.
_MEMORY_TIMER_NS: Final = range(8_000_500_000, 8_100_500_000)
_TIMER_SLACK_NS: Final = 20_000_000  # nanoseconds: limits are rounded to milliseconds, and calls begin later

_TIMED_OUT: Final = frozenset({"EAGAIN", "EINTR", "ETIMEDOUT"})
_IDLE: Final = ("lock", "child", "keyboard")
_SHORT_NAMES: Final = {
    "recvfrom": "recv", "sendto": "send", "accept4": "accept", "epoll_pwait": "epoll_wait",
    "pselect6": "select", "ppoll": "poll", "clock_nanosleep": "sleep", "nanosleep": "sleep", "wait4": "wait",
}  # fmt: skip

Activity: TypeAlias = Literal[
    "read", "events", "send", "accept", "connect", "sleep", "keyboard", "child", "lock", "other", "run"
]


@dataclass(frozen=True, slots=True)
class ThreadState:
    """What a thread does at a time, and since when.

    "read": it waits for data of one socket, in recv() or in poll(). "events": it waits for several sockets.
    "run": it is in no call that is known. `call` is the call it is in, or its last one. `is_runtime_timer`:
    the time limit of the call is that of its runtime's memory, and not the program's.
    """

    process: int
    thread: int
    activity: Activity
    since: int
    call: Call | None = None
    is_runtime_timer: bool = False

    @property
    def sockets(self) -> tuple[int, ...]:
        """The sockets that the call is about."""
        if self.call is None or self.activity == "run":
            return ()
        return self.call.sockets or (() if self.call.socket is None else (self.call.socket,))

    def waits_for(self, socket: int) -> bool:
        """Return whether it waits for data of a socket, alone or among others."""
        return self.activity in ("read", "events") and socket in self.sockets

    def awaits_room(self, socket: int) -> bool:
        """Return whether it waits until a socket is writable, and not for its data, among other things."""
        if self.activity not in ("read", "events") or self.call is None:
            return False
        events = dict(zip(self.call.sockets, self.call.wanted_events, strict=False)).get(socket, "")
        return "OUT" in events and "IN" not in events

    @property
    def call_waits_for_files(self) -> bool:
        """Whether it also waits for descriptors that are no sockets, such as pipes and timers."""
        return self.call is not None and bool(self.call.descriptors_waited)

    @property
    def has_limit(self) -> bool:
        """Whether it wakes up by itself, for other work."""
        limit = None if self.call is None or self.is_runtime_timer else self.call.timeout_ns
        return self.activity == "events" and limit is not None


class Moment:
    """The state of every thread and stream at a time."""

    def __init__(self, trace_index: TraceIndex, now: int) -> None:
        self.trace_index = trace_index
        self.now = now
        self.threads = dict(self._states())

    def _states(self) -> Iterator[tuple[int, ThreadState]]:
        trace_index = self.trace_index
        # They were read when the run was frozen, so an instant after the last moment.
        is_last = self.now >= trace_index.end
        blocked = {call.thread: call for call in trace_index.trace.blocked if is_last or call.at <= self.now}
        for thread, calls in _calls_by_thread(trace_index).items():
            exited = trace_index.trace.thread_exits.get(thread)
            if exited is not None and exited > trace_index.end:
                exited = None  # after the run was frozen: ended by bothends
            ended = exited or trace_index.ended_at(calls[0].process)
            if calls[0].at > self.now or (ended is not None and ended <= self.now - RECENT_NS):
                continue
            at = bisect_right(calls, self.now, key=lambda call: call.at) - 1
            state = self._state(thread, calls, at, blocked.get(thread))
            # A thread of Java that times out may exit before the connection is closed.
            if (
                ended is None
                or ended > self.now
                or (state.activity == "read" and state.call is not calls[at])
            ):
                yield thread, state

    def _state(self, thread: int, calls: list[Call], at: int, blocked: Call | None) -> ThreadState:
        last = calls[at]
        # A call that is read after the last event has no socket: it says only that the thread does not run.
        is_known = blocked is not None and (blocked.at <= self.now or activity_of(blocked) in _IDLE)
        if blocked is not None and is_known and blocked.at >= last.at:
            since = min(blocked.at, last.until or blocked.at)
            of_runtime = _is_memory_timer(self.trace_index, calls, blocked)
            return ThreadState(last.process, thread, activity_of(blocked), since, blocked, of_runtime)
        if last.until is None or last.until > self.now:
            of_runtime = _is_memory_timer(self.trace_index, calls, last)
            return ThreadState(last.process, thread, activity_of(last), last.at, last, of_runtime)
        for call in reversed(calls[max(0, at - 8) : at + 1]):
            if (call.until or 0) < self.now - RECENT_NS:
                break
            timed_out = call.error in _TIMED_OUT or (call.name in WAITING and call.result == 0)
            if timed_out and call.duration >= BLOCKED_NS:
                return ThreadState(call.process, thread, activity_of(call), call.at, call)
        return ThreadState(last.process, thread, "run", last.until, last)

    def sent(self, socket: int) -> int:
        """Return how many bytes a socket had been given by calls that had ended, or had sent."""
        calls = self.trace_index.calls_at(socket, *SENDING)
        by_calls = sum(each.size for each in calls if (each.until or self.now + 1) <= self.now)
        packets = (
            each for each in self.trace_index.packets_from[socket] if each.size and each.at <= self.now
        )
        return max(by_calls, max(((each.offset or 0) + each.size for each in packets), default=0))

    def received(self, socket: int) -> int:
        """Return how many bytes had been read from a socket."""
        return sum(
            each.size
            for each in self.trace_index.calls_at(socket, *RECEIVING)
            if "MSG_PEEK" not in each.flags and (each.until or self.now + 1) <= self.now
        )

    def states_at(self, socket: int) -> list[ThreadState]:
        """Return the states of the threads that could act on a socket: those that have used it, or all."""
        holders = self.trace_index.holders_at(socket, self.now)
        there = [each for each in self.threads.values() if each.process in holders]
        used = {call.thread for call in self.trace_index.calls_at(socket, *MOVING) if call.at <= self.now}
        waiting = [each for each in there if socket in each.sockets]
        return waiting or [each for each in there if each.thread in used] or there


@dataclass(frozen=True, slots=True)
class Standstill:
    """A connection on which nothing moves: from the end that was judged, its peer, and since when.

    `socket` is the end of a thread that waits for data, `waiter` its state. `peer` is None if the connection
    was never accepted. `unread` are the bytes that this end sent and the peer has not read, `unread_here`
    those of the peer.
    """

    moment: Moment
    socket: Socket
    peer: Socket | None
    since: int
    waiter: ThreadState
    unread: int
    unread_here: int

    @property
    def peers(self) -> list[ThreadState]:
        """The states of the threads at the other end."""
        return self.moment.states_at(self.peer.number) if self.peer is not None else []

    @property
    def length(self) -> int:
        """How long nothing has moved, in nanoseconds."""
        return self.moment.now - max(self.since, self.waiter.since)

    def sends(self, socket: Socket) -> list[Call]:
        """Return the calls that had sent data from a socket before."""
        return [
            call
            for call in self.moment.trace_index.sends(socket)
            if (call.until or self.moment.now + 1) <= self.moment.now
        ]

    def receives(self, socket: Socket) -> list[Call]:
        """Return the calls that had received data from a socket before."""
        return [
            call
            for call in self.moment.trace_index.receives(socket)
            if call.size and (call.until or self.moment.now + 1) <= self.moment.now
        ]


@lru_cache(maxsize=2)
def standstills(trace_index: TraceIndex, shortest: int = STANDSTILL_NS) -> tuple[Standstill, ...]:
    """Return the connections that stand still, the one that began first before the others.

    Both ends may wait: then there are two, and the first is that of the client.

    Args:
        shortest: nanoseconds; less is for a rule whose evidence does not lie in the time.
    """
    moments: dict[int, Moment] = {}
    found = []
    for socket in trace_index.sockets("stream"):
        if socket.is_listener or socket.is_wrapped or not trace_index.calls_by_socket[socket.number]:
            continue
        number = trace_index.peer_of(socket.number)
        peer = trace_index.trace.sockets.get(number) if number is not None else None
        if peer is not None and _is_queued(trace_index, peer):
            peer = None
        other = peer or listener_of(trace_index, socket)
        ends = [socket.number] if other is None else [socket.number, other.number]
        until = min(_ends_at(trace_index, each) for each in ends)
        since = max((_last_moved(trace_index, each, until) for each in ends), default=0)
        if until - since < shortest or not since:
            continue
        moment = moments.get(until)
        if moment is None:
            moment = moments[until] = Moment(trace_index, until)
        for state in moment.states_at(socket.number):
            if state.waits_for(socket.number) or (
                state.activity == "send" and socket.number in state.sockets
            ):
                unread = max(0, moment.sent(socket.number) - moment.received(peer.number)) if peer else 0
                here = max(0, moment.sent(peer.number) - moment.received(socket.number)) if peer else 0
                found.append(Standstill(moment, socket, peer, since, state, unread, here))
                break
    return tuple(sorted(found, key=lambda each: (each.since, each.socket.accepted_from is not None)))


def _is_queued(trace_index: TraceIndex, peer: Socket) -> bool:
    """Return whether a connection was in the accept queue until the programs were being ended.

    The trace has no call on it then, but knows it from the accept() after its end.
    """
    if peer.accepted_from is None or trace_index.calls_by_socket[peer.number]:
        return False
    accepts = trace_index.calls_named(*ACCEPTING)
    return not any(call.created_id == peer.number and call.until is not None for call in accepts)


def listener_of(trace_index: TraceIndex, socket: Socket) -> Socket | None:
    """Return the traced listener that a socket connects to."""
    if socket.peer is None or socket.accepted_from is not None:
        return None
    return next(
        (each for each, _ in trace_index.listeners() if listens_at(each.local, socket.peer)),
        None,
    )


def call_name(state: ThreadState | Call) -> str:
    """Return a call as a program has it: `recv(4, 100)`."""
    call = state.call if isinstance(state, ThreadState) else state
    if call is None:
        return "no call"
    name = _SHORT_NAMES.get(call.name, call.name)
    if name in ("sleep", "wait", "poll", "select", "futex"):
        return f"{name}()"
    parts = [str(each) for each in (call.descriptor, call.requested) if each is not None]
    return f"{name}({', '.join([*parts, *sorted(call.flags & {'MSG_WAITALL'})])})"


def age(standstill: Standstill, state: ThreadState) -> str:
    """Return how long a thread has been in its call."""
    return formatting.duration(max(0, standstill.moment.now - state.since))


def evidence(*items: Call | ThreadState | None) -> tuple[int, ...]:
    """Return the numbers of calls, in order, each once."""
    calls = [each.call if isinstance(each, ThreadState) else each for each in items]
    return tuple(dict.fromkeys(sorted(call.number for call in calls if call is not None)))


def bytes_text(size: int) -> str:
    """Return a number of bytes as text."""
    return "1 byte" if size == 1 else f"{size:,} bytes"


@lru_cache(maxsize=1)
def _calls_by_thread(trace_index: TraceIndex) -> dict[int, list[Call]]:
    found: dict[int, list[Call]] = defaultdict(list)
    for call in trace_index.calls:
        found[call.thread].append(call)
    for calls in found.values():
        calls.sort(key=attrgetter("at"))
    return found


def activity_of(call: Call) -> Activity:
    """Return what a thread in a call does."""
    if call.name in WAITING:
        if not call.sockets and 0 in call.descriptors_waited:
            return "keyboard"
        if not call.sockets:
            return "other" if call.descriptors_waited or call.name.startswith("epoll") else "sleep"
        alone = len(call.sockets) == 1 and not call.descriptors_waited and not call.name.startswith("epoll")
        return "read" if alone else "events"
    if call.name.startswith("futex"):
        return "lock"
    for names, activity in (
        (SLEEPING, "sleep"), (ACCEPTING, "accept"), (REAPING, "child"), (frozenset({"connect"}), "connect"),
    ):  # fmt: skip
        if call.name in names:
            return activity  # type: ignore[return-value]
    if call.name in RECEIVING:
        return "read" if call.socket is not None else "other" if call.descriptor else "keyboard"
    return "send" if call.name in SENDING and call.socket is not None else "other"


def _is_memory_timer(trace_index: TraceIndex, calls: list[Call], wait: Call) -> bool:
    """Return whether the time limit of a wait of Node.js is V8's, by the first wait up to the same time."""
    if not wait.name.startswith("epoll") or not wait.timeout_ns or not runs_node(trace_index, wait.process):
        return False
    deadline, first = wait.at + wait.timeout_ns, wait
    for call in reversed(calls):
        if call.at < deadline - _MEMORY_TIMER_NS.stop - _TIMER_SLACK_NS:
            break
        limit = call.timeout_ns
        if call.name == wait.name and limit and abs(call.at + limit - deadline) <= _TIMER_SLACK_NS:
            first = call
    return (first.timeout_ns or 0) in _MEMORY_TIMER_NS


def _ends_at(trace_index: TraceIndex, socket: int) -> int:
    """Return when an end was closed, received EOF or a reset, or its last holder exited."""
    for call in trace_index.calls_by_socket[socket]:
        if call.result and not call.error:
            continue  # most calls: they moved data
        is_end = (
            call.name in RECEIVING and call.result == 0 and call.requested != 0 and call.until is not None
        )
        if is_end or (call.name in MOVING and call.error in ("ECONNRESET", "EPIPE")):
            return (call.until or call.at) - 1
    if trace_index.holders_at(socket, trace_index.end):
        return trace_index.end
    released = _released(trace_index).get(socket)
    return released - 1 if released is not None else trace_index.end


@lru_cache(maxsize=1)
def _released(trace_index: TraceIndex) -> dict[int, int]:
    """Return when the last descriptor of each socket was closed, by call or by exit, if it was."""
    return {
        change.socket: change.at
        for change in trace_index.trace.descriptor_changes()
        if not change.is_open and change.at <= trace_index.end
    }


def _last_moved(trace_index: TraceIndex, socket: int, until: int) -> int:
    """Return when a socket last moved data before a time, or was connected; 0 if it did not."""
    times: list[int] | None = trace_index.shared.get(("moved", socket))
    if times is None:
        times = trace_index.shared["moved", socket] = sorted(
            call.until
            for call in trace_index.calls_by_socket[socket]
            if call.until is not None
            and ((call.size and call.name in MOVING) or (call.name == "connect" and not call.failed))
        )
    before = bisect_right(times, until)
    return times[before - 1] if before else 0
