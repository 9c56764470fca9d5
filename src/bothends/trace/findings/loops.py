"""Rules about loops that burn a processor: a call returns at once each time, and nothing is done. Pure.

A turn is a poll(), select() or epoll_wait() that returns at once, and the calls up to the next one. It is
idle if nothing was transferred, accepted or closed in it. Many idle turns in a row are a loop, named by what
was reported and why that did not end:

reported          meanwhile                              rule
POLLOUT only      nothing to send                        always-writable
POLLHUP, POLLERR  the descriptor is not closed           hangup-ignored
POLLIN            no recv(), or no accept()              readable-ignored
nothing           the time limit is 0                    zero-timeout
POLLIN            recv() = 0, MSG_PEEK, EMFILE           eof-ignored, peek-not-read, descriptors-exhausted
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from bothends.trace.capture.calls import (
    ACCEPTING,
    FORKING,
    MOVING,
    REAPING,
    RECEIVING,
    SENDING,
    SLEEPING,
    WAITING,
)
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting

MIN_TURNS: Final = 50  # idle turns in a row that make a loop
MIN_NS: Final = 250_000_000  # nanoseconds: another thread takes less to read what was reported
INTERVAL_NS: Final = 5_000_000  # nanoseconds between two turns; a loop that sleeps or computes takes longer
BUSY_LOOP_CALLS: Final = 50  # EAGAIN this many times in a row is a loop
BUSY_LOOP_ON_ONE: Final = 20  # and this many times on one socket
EOFS: Final = 4  # reads of EOF: the loop reads it in each turn, and eof-ignored is the finding
MIN_PEEKS: Final = 3  # the same data, and no read: a program that only looks first reads after one or two

Kind: TypeAlias = Literal["writable", "hangup", "readable", "nothing", "other"]

_FAILED: Final = frozenset({"POLLHUP", "POLLERR", "POLLRDHUP", "EPOLLHUP", "EPOLLERR", "EPOLLRDHUP"})
_READABLE: Final = frozenset({"POLLIN", "POLLRDNORM", "POLLPRI", "EPOLLIN", "EPOLLRDNORM", "EPOLLPRI"})
_ENDING: Final = (
    ACCEPTING | FORKING | REAPING | {"close", "shutdown", "socket", "socketpair", "bind", "listen"}
)
_NAMES: Final = {
    "pselect6": "select", "_newselect": "select", "ppoll": "poll", "epoll_pwait": "epoll_wait",
    "epoll_pwait2": "epoll_wait", "recvfrom": "recv", "accept4": "accept",
}  # fmt: skip


@dataclass(slots=True)
class Loop:
    """Idle turns in a row of one thread: what was reported, at which socket, by which calls.

    `calls` are the waiting calls, and `meanwhile` the other calls on that socket between them.
    """

    kind: Kind
    socket: int | None
    calls: list[Call] = field(default_factory=list)
    meanwhile: list[Call] = field(default_factory=list)

    @property
    def duration(self) -> int:
        """From the first turn to the last one, in nanoseconds."""
        return (self.calls[-1].until or self.calls[-1].at) - self.calls[0].at


@lru_cache(maxsize=1)
def loops(trace_index: TraceIndex) -> tuple[Loop, ...]:
    """Return the loops that burned a processor: of each thread and kind, the longest one."""
    if not trace_index.calls_named(*WAITING):
        return ()
    longest: dict[tuple[int, Kind], Loop] = {}
    current: dict[int, Loop] = {}
    for call in trace_index.calls:
        loop = current.get(call.thread)
        if call.name not in WAITING:
            if loop is not None and (_is_progress(call) or call.name in SLEEPING):
                del current[call.thread]
            elif loop is not None and call.socket == loop.socket:
                loop.meanwhile.append(call)
            continue
        reported = _reported(trace_index, call)
        if reported is None:
            current.pop(call.thread, None)
            continue
        if loop is None or (loop.kind, loop.socket) != reported:
            loop = current[call.thread] = Loop(*reported)
        loop.calls.append(call)
        key = call.thread, loop.kind
        if key not in longest or len(loop.calls) > len(longest[key].calls):
            longest[key] = loop
    return tuple(each for each in longest.values() if _is_busy(trace_index, each))


def _is_progress(call: Call) -> bool:
    """Return whether a call did something: it is no idle turn in which this happens."""
    if call.failed or call.result is None:
        return False
    if call.name in MOVING:
        return call.size > 0 and "MSG_PEEK" not in call.flags
    is_removed = call.name == "epoll_ctl" and "EPOLL_CTL_DEL" in call.arguments
    return is_removed or call.name in _ENDING or call.name == "connect"


def _reported(trace_index: TraceIndex, call: Call) -> tuple[Kind, int | None] | None:
    """Return what a waiting call reported of which socket; None if it waited, or reported something else."""
    if call.until is None or call.failed or call.result is None:
        return None
    if call.result == 0:
        return ("nothing", None) if call.timeout_ns == 0 else None
    if call.duration > INTERVAL_NS * 4 or not call.ready:
        return None
    number_of_events = sum(each.count("POLL") for each in call.ready_events)
    if call.result not in (len(call.ready), number_of_events):
        return None  # of descriptors that are no sockets, too
    for socket, events in zip(call.ready, call.ready_events, strict=False):
        flags = set(events.split("|"))
        if flags & _FAILED:
            return "hangup", socket
        if flags & _READABLE:
            return "readable", socket
    return "writable", call.ready[0]


def _is_busy(trace_index: TraceIndex, loop: Loop) -> bool:
    """Drop the turns before the last progress of any thread, and return whether those left are a loop."""
    last = 0
    for call in trace_index.calls_by_socket[loop.socket or 0] if loop.socket is not None else ():
        if _is_progress(call) and call.at <= loop.calls[-1].at:
            last = max(last, call.until or call.at)
    loop.calls = [call for call in loop.calls if call.at >= last]
    count = len(loop.calls)
    return count >= MIN_TURNS and loop.duration >= MIN_NS and loop.duration / count <= INTERVAL_NS


def _times(loop: Loop) -> str:
    return f"{len(loop.calls):,} times within {formatting.duration(loop.duration)}"


def _descriptor(trace_index: TraceIndex, loop: Loop) -> str:
    """Return the descriptor of the socket in a loop's process, and the address at its other end."""
    assert loop.socket is not None
    first = loop.calls[0]
    held = trace_index.holders_at(loop.socket, first.until or first.at).get(first.process, set())
    socket = trace_index.trace.sockets[loop.socket]
    where = ""
    if socket.is_listener and socket.local is not None:
        where = f" (the listener {socket.local})"
    elif socket.peer is not None and socket.peer.host:
        where = f" (the connection to {socket.peer})"
    return f"descriptor {min(held)}{where}" if held else f"a socket{where}"


def _call_name(call: Call) -> str:
    return f"{_NAMES.get(call.name, call.name)}()"


def _evidence(loop: Loop, *others: Call | None) -> tuple[int, ...]:
    first = [each.number for each in (*others, *loop.calls[:2], *loop.meanwhile[:1]) if each is not None]
    return tuple(dict.fromkeys((*sorted(first), loop.calls[-1].number)))


def always_writable(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a loop that is woken because a socket is writable, and has nothing to send."""
    for loop in loops(trace_index):
        if loop.kind != "writable" or loop.socket is None:
            continue
        if any(call.name in SENDING or call.name == "connect" for call in loop.meanwhile):
            continue
        call, name = loop.calls[0], name_of(trace_index, loop.calls[0].process)
        yield Finding(
            "always-writable",
            "A loop waits until a socket is writable, with nothing to send",
            f"{capitalized(name)} called {_call_name(call)} {_times(loop)}: each call returned at once "
            f"because {_descriptor(trace_index, loop)} was writable, and {name} sent nothing on it. A socket "
            "is writable as long as its send buffer has room.",
            "Wait for writability only while unsent data is in a buffer, and stop when all of it is sent.",
            _evidence(loop),
            process=call.process,
            sockets=(loop.socket,),
            in_c="p.events = POLLIN | (unsent > 0 ? POLLOUT : 0);   /* epoll: EPOLL_CTL_MOD */",
            in_python="selector.modify(s, EVENT_READ | (EVENT_WRITE if unsent else 0))",
        )


def hangup_ignored(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a loop that is woken because a connection has ended or failed, and does not close it."""
    for loop in loops(trace_index):
        eofs = [call for call in loop.meanwhile if call.name in RECEIVING and call.result == 0]
        eof = _eof_before(trace_index, loop) or (eofs[0] if eofs else None)
        if loop.socket is None or not (loop.kind == "hangup" or (loop.kind == "readable" and eof)):
            continue
        if len(eofs) >= EOFS:
            continue  # eof-ignored
        call, name = loop.calls[0], name_of(trace_index, loop.calls[0].process)
        events = dict(zip(call.ready, call.ready_events, strict=False)).get(loop.socket, "")
        since = " recv() had returned 0 (EOF) once." if eof is not None else ""
        yield Finding(
            "hangup-ignored",
            "A loop ignores that a connection has ended",
            f"{capitalized(name)} called {_call_name(call)} {_times(loop)}: each call returned at once "
            f"because it reported {events} of {_descriptor(trace_index, loop)}, and {name} neither closed it "
            f"nor stopped waiting for it.{since}",
            "After POLLHUP, POLLERR or a read of 0 bytes, remove the descriptor from the set and close it. "
            "poll() reports POLLHUP and POLLERR even if they were not asked for.",
            _evidence(loop, eof),
            process=call.process,
            sockets=(loop.socket,),
            in_c="if (n == 0 || (p.revents & (POLLHUP | POLLERR))) { close(p.fd); p.fd = -1; }",
            in_python="if not data: selector.unregister(s); s.close()",
        )


def _eof_before(trace_index: TraceIndex, loop: Loop) -> Call | None:
    if loop.socket is None:
        return None
    for call in trace_index.calls_by_socket[loop.socket]:
        if call.at > loop.calls[0].at:
            break
        if call.name in RECEIVING and call.result == 0 and call.requested != 0:
            return call
    return None


def readable_ignored(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a loop that is woken because a socket is readable, and neither reads nor accepts."""
    for loop in loops(trace_index):
        if loop.kind != "readable" or loop.socket is None or _eof_before(trace_index, loop) is not None:
            continue
        if any(call.name in ACCEPTING | RECEIVING and call.requested != 0 for call in loop.meanwhile):
            continue  # eof-ignored, peek-not-read, descriptors-exhausted; or another process accepts
        call, name = loop.calls[0], name_of(trace_index, loop.calls[0].process)
        socket = trace_index.trace.sockets[loop.socket]
        verb = "accept() was not called" if socket.is_listener else "nothing read it"
        yield Finding(
            "readable-ignored",
            "A loop waits for data, and does not read it",
            f"{capitalized(name)} called {_call_name(call)} {_times(loop)}: each call returned at once "
            f"because {_descriptor(trace_index, loop)} was readable, and {verb}.",
            "Read from (or accept on) each descriptor that is reported, with a buffer that has room; or "
            "remove it from the set as long as you do not want its data.",
            _evidence(loop),
            process=call.process,
            sockets=(loop.socket,),
            in_c="if (p.revents & POLLIN) n = recv(p.fd, buffer, sizeof buffer, 0);",
            in_python="for key, _ in selector.select(): data = key.fileobj.recv(4096)",
        )


def zero_timeout(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a loop around poll(), select() or epoll_wait() with a time limit of 0."""
    for loop in loops(trace_index):
        if loop.kind != "nothing":
            continue
        call, name = loop.calls[0], name_of(trace_index, loop.calls[0].process)
        yield Finding(
            "zero-timeout",
            "A loop asks again and again, with a time limit of 0",
            f"{capitalized(name)} called {_call_name(call)} with a time limit of 0 {_times(loop)}, and no "
            "descriptor was ready: the loop does not wait, and burns a processor.",
            "Use no time limit (-1, NULL, None), or the time until the next timer: the call returns as soon "
            "as a descriptor is ready.",
            _evidence(loop),
            process=call.process,
            sockets=call.sockets[:1],
            in_c="n = poll(fds, count, -1);   /* select: NULL as its last argument */",
            in_python="readable, _, _ = select.select(sockets, [], [])   # without a time limit",
        )


def busy_loop(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a program that calls non-blocking sockets repeatedly instead of waiting for them."""
    for number, calls in trace_index.calls_by_process.items():
        streak = _longest_streak(calls)
        duration = (streak[-1].until or streak[-1].at) - streak[0].at if streak else 0
        if len(streak) < BUSY_LOOP_CALLS or duration / len(streak) > INTERVAL_NS:
            continue
        by_socket: dict[int | None, list[Call]] = defaultdict(list)
        for call in streak:
            by_socket[call.socket].append(call)
        _, most = max(by_socket.items(), key=lambda each: len(each[1]))
        if len(most) < BUSY_LOOP_ON_ONE:
            continue
        more = f" (and those on {len(by_socket) - 1} more)" if len(by_socket) > 1 else ""
        name = name_of(trace_index, number)
        yield Finding(
            "busy-loop",
            "A busy loop on a non-blocking socket",
            f"{len(most):,} calls of {_call_name(most[0])} on descriptor {most[0].descriptor}{more} returned "
            f"EAGAIN within {formatting.duration(duration)}, and {name} did not wait in between.",
            "Wait with select, poll or epoll until the socket is ready.",
            tuple(call.number for call in (*streak[:3], streak[-1])),
            process=number,
            sockets=tuple(each for each in by_socket if each is not None)[:3],
            in_c="poll(&(struct pollfd){fd, POLLIN}, 1, -1);",
            in_python="select.select([s], [], [])",
        )


def _longest_streak(calls: list[Call]) -> list[Call]:
    """Return the longest sequence of calls of one thread that all returned EAGAIN at once."""
    longest: list[Call] = []
    streaks: dict[int, list[Call]] = {}
    for call in calls:
        if call.error == "EAGAIN" and call.name not in WAITING and call.duration < INTERVAL_NS:
            streak = streaks.setdefault(call.thread, [])
            streak.append(call)
            if len(streak) > len(longest):
                longest = streak
        elif call.name in WAITING | SLEEPING or _is_progress(call) or call.duration >= INTERVAL_NS:
            streaks.pop(call.thread, None)
    return longest


def peek_not_read(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find data that is looked at with MSG_PEEK again and again, and never read."""
    for socket in trace_index.sockets("stream", "datagram", "seqpacket"):
        calls = trace_index.calls_by_socket[socket.number]
        peeks = [call for call in calls if "MSG_PEEK" in call.flags and call.name in RECEIVING and call.size]
        if len(peeks) < MIN_PEEKS or any(call.size for call in trace_index.receives(socket)):
            continue
        last = peeks[-1]
        same = [each for each in peeks if (each.size, each.data) == (last.size, last.data)]
        if len(same) < MIN_PEEKS:
            continue  # it waits for a whole message
        name = name_of(trace_index, last.process)
        took = formatting.duration((last.until or last.at) - same[0].at)
        yield Finding(
            "peek-not-read",
            "MSG_PEEK is never followed by a read",
            f"{capitalized(name)} received the same {last.size} bytes "
            f"{formatting.quoted(last.data, last.size, 12)} {len(same):,} times within {took}, each "
            "time with MSG_PEEK, and never read them: they stay in the receive buffer."
            + (
                f" It asked for {last.requested:,}, and probably waits until all of them are there."
                if (last.requested or 0) > last.size
                else ""
            ),
            "MSG_PEEK leaves the data in the buffer. Call recv() without it to take the data out.",
            (*(each.number for each in same[:3]), last.number),
            process=last.process,
            sockets=(socket.number,),
            in_c="n = recv(fd, buffer, n, 0);   /* after the look with MSG_PEEK */",
            in_python="data = s.recv(n)   # after s.recv(n, socket.MSG_PEEK)",
        )


def zero_size_read(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a read into a buffer of length 0, whose result 0 is taken for EOF."""
    for socket in trace_index.sockets("stream", "seqpacket"):
        if socket.is_wrapped:
            continue
        for call in trace_index.calls_by_socket[socket.number]:
            is_empty = call.name in RECEIVING and call.requested == 0 and call.result == 0
            if not is_empty or call.name in ("recvmsg", "recvmmsg") or not _taken_for_eof(trace_index, call):
                continue
            unread = _unread(trace_index, socket)
            if unread <= 0 and not _peer_waited(trace_index, socket, call):
                continue
            name = name_of(trace_index, call.process)
            harm = f"{unread:,} bytes of its data were not read" if unread > 0 else "it waited for an answer"
            yield Finding(
                "zero-size-read",
                "A read into a buffer of length 0 is taken for EOF",
                f"{capitalized(name)} called {_NAMES.get(call.name, call.name)}({call.descriptor}) with a "
                f"length of 0. It returned 0, which {name} took for EOF and stopped, while the peer had not "
                f"ended: {harm}.",
                "Never read into a buffer that has no room: empty or enlarge it first, or close the "
                "connection with an error because the message is too long.",
                (call.number,),
                process=call.process,
                sockets=(socket.number,),
                in_c="if (used == sizeof buffer) return TOO_LONG;   /* before recv() */",
                in_python="data = s.recv(4096)   # not s.recv(0)",
            )
            break


def _taken_for_eof(trace_index: TraceIndex, call: Call) -> bool:
    following = trace_index.next_call(call)
    if following is None:
        return trace_index.ended_at(call.process) is not None
    return following.name in ("close", "shutdown") or (
        following.name in SENDING
        and not any(each.name in RECEIVING for each in trace_index.later_calls(following))
    )


def _peer_waited(trace_index: TraceIndex, socket: Socket, read: Call) -> bool:
    """Return whether the peer was open at a read, and then read EOF or was reset."""
    peer = trace_index.peer_of(socket.number)
    if peer is None:
        return False
    for call in trace_index.calls_by_socket[peer]:
        if call.at <= read.at and call.name in ("close", "shutdown"):
            return False
        is_end = call.name in RECEIVING and (call.result == 0 or call.error == "ECONNRESET")
        if (call.until or 0) > read.at and is_end and call.requested:
            return True
    return False


def _unread(trace_index: TraceIndex, socket: Socket) -> int:
    peer = trace_index.peer_of(socket.number)
    if peer is None:
        return 0
    sent = trace_index.sends(trace_index.trace.sockets[peer])
    return sum(each.size for each in sent) - sum(each.size for each in trace_index.receives(socket))
