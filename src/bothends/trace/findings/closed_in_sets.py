"""A rule about a descriptor that is closed and still in the set of select() or poll(). Pure.

select() fails with EBADF then, and poll() reports POLLNVAL at once (poll(2)). A closed socket of Python has
the descriptor -1, for which its select() raises ValueError without a system call. epoll forgets
what is closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import RECEIVING, SELECTS, WAITING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of, runs
from bothends.trace.findings.standstill import call_name
from bothends.trace.model import Call, ProcessEvent
from bothends.trace.rendering import formatting

FEW: Final = 3  # calls that fail in the same way: the program does not take the descriptor out
CRASH_NS: Final = 1_000_000_000  # nanoseconds between an error that is not handled and the exit

_POLLS: Final = frozenset({"poll", "ppoll"})
_IN_C: Final = {
    "select": "FD_CLR(fd, &master); close(fd);",
    "poll": "close(fds[i].fd); fds[i].fd = -1;   /* poll() skips it; or remove the entry */",
}
_IN_PYTHON: Final = {
    "select": "inputs.remove(s); s.close()",
    "poll": "poller.unregister(s); s.close()",
}


def closed_in_set(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a closed descriptor in the set of select() or poll(), which then waits for nothing any more."""
    for process, calls in trace_index.calls_by_process.items():
        failed = [call for call in calls if call.name in SELECTS and call.error == "EBADF"]
        polls = [call for call in calls if _reports_closed(call)]
        for name, kind in (("select", failed), ("poll", polls)):
            close = _close_of_member(calls, kind[0]) if kind else None
            same = [call for call in kind if close is not None and _has(call, close)]
            if close is None or not (len(same) >= FEW or _is_last(calls, same[-1])):
                continue
            yield _finding(trace_index, process, name, close, same)
            break
    for event in trace_index.process_events:
        if event.kind == "ended":
            yield from _crash(trace_index, event)


def _reports_closed(call: Call) -> bool:
    """Return whether a poll() returned, and no socket was ready."""
    return (
        call.name in _POLLS
        and call.result is not None
        and call.result > 0
        and not call.ready
        and bool(call.descriptors_waited)
        and call.until is not None
    )


def _has(call: Call, close: Call) -> bool:
    return close.descriptor in call.descriptors_waited and call.number > close.number


def _close_of_member(calls: list[Call], wait: Call) -> Call | None:
    """Return the close() of a socket in the set of a call, if all members that are no sockets are closed."""
    closes: dict[int | None, Call] = {}
    for call in calls:
        if call.number >= wait.number:
            break
        if call.name == "close" and not call.failed and call.socket is not None:
            closes[call.descriptor] = call
    members = [closes.get(number) for number in wait.descriptors_waited]
    return members[0] if members and None not in members else None


def _is_last(calls: list[Call], call: Call) -> bool:
    """Return whether a thread waited for nothing after a call."""
    return not any(
        each.number > call.number and each.thread == call.thread and each.name in WAITING for each in calls
    )


def _finding(trace_index: TraceIndex, process: int, name: str, close: Call, calls: list[Call]) -> Finding:
    program, number = name_of(trace_index, process), close.descriptor
    count = f", {len(calls):,} times so far" if len(calls) > 1 else ""
    after = formatting.duration(max(0, calls[0].at - (close.until or close.at)))
    return Finding(
        "closed-in-set",
        f"A closed descriptor is still in the set of {name}()",
        f"{capitalized(program)} closed descriptor {number} and left it in the set: {name}(), {after} later, "
        + (
            f"fails with EBADF{count}, and the other descriptors of the set are not served."
            if name == "select"
            else f"returns at once (POLLNVAL){count}, so the loop never waits and keeps a processor busy."
        ),
        "Take a descriptor out of the set before it is closed.",
        (close.number, *(call.number for call in calls[:2])),
        "seen" if name == "select" else "inferred",
        "" if name == "select" else "the only members of the set that are no open sockets are closed",
        process=process,
        sockets=(close.socket or 0,),
        in_c=_IN_C[name],
        in_python=_IN_PYTHON[name],
    )


def _crash(trace_index: TraceIndex, event: ProcessEvent) -> Iterator[Finding]:
    """Find a Python program that failed right after it had closed a socket that its select() waited for."""
    status = trace_index.process(event.process).status
    if not status or status < 0 or not runs(trace_index, event.process, "python", "pypy"):
        return
    own = [call for call in trace_index.calls_by_process[event.process] if call.until is not None]
    at = next((at for at in range(len(own) - 1, -1, -1) if own[at].name in WAITING), None)
    if at is None or own[at].name not in SELECTS | _POLLS:
        return
    wait, handled = own[at], own[at + 1 :]
    ended = {
        call.socket for call in handled if call.name in RECEIVING and not call.size and not call.failed
    } & set(wait.sockets)
    closes = [call for call in handled if call.name == "close" and call.socket in ended]
    # What follows is the rest of the ready sockets, and at the exit Python closes what is open.
    quiet = ("close", "getsockname", "getpeername")
    is_rest = all(call.socket in wait.ready or call.name in quiet for call in handled)
    others = [number for number in wait.sockets if number not in ended]
    connections = [number for number in others if not trace_index.trace.sockets[number].is_listener]
    if not closes or not is_rest or not connections or event.at - closes[0].at >= CRASH_NS:
        return
    read = next(call for call in handled if call.socket == closes[0].socket)
    later = formatting.duration(max(0, event.at - closes[0].at))
    name = name_of(trace_index, event.process)
    yield Finding(
        "closed-in-set",
        f"{capitalized(name)} exited with an error after it had closed a connection of its select()",
        f"{capitalized(name)} read EOF, closed descriptor {closes[0].descriptor}, which {call_name(wait)} "
        f"had waited for, and exited with status {status} {later} later, "
        f"with {len(connections)} other connection{'s' * (len(connections) > 1)} open. Probably the closed "
        "socket is still in the list: its descriptor is -1, and select() raises ValueError.",
        "Take a socket out of the list before it is closed. The error that the program printed says where "
        "it failed.",
        (wait.number, read.number, closes[0].number, event.number),
        "inferred",
        "the sockets that were ready were handled, and select() was not called again",
        process=event.process,
        sockets=(closes[0].socket or 0, *others),
        in_c=_IN_C["select"],
        in_python=_IN_PYTHON["select"],
    )
