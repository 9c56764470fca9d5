"""A rule about a program and its child that wait for each other on pipes. Pure.

server ── writes ──> pipe ── stdin ──> sort        sort reads until EOF, which close() of the server sends
server <── reads ─── pipe <── stdout ── sort       the server waits for a first line

The child sees no EOF because the server keeps the writing end open: a pipe has none before its last writer
closes it (pipe(7)).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from bothends.trace.capture.calls import SENDING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, executable_of, name_of
from bothends.trace.findings.standstill import (
    Standstill,
    ThreadState,
    age,
    bytes_text,
    call_name,
    evidence,
    standstills,
)
from bothends.trace.model import Call
from bothends.trace.rendering import formatting

_MOVING: Final = frozenset({"read", "readv", "write", "writev"})


class _Descendant(NamedTuple):
    """A process that another one has started, the call it is blocked in, and what the pipe has moved.

    `last` is its last transfer on the descriptor of that call, `total` the bytes of all of them.
    """

    blocked: Call
    last: Call
    total: int


def child_pipe(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a server that waits for a child, which waits for the server at the other end of a pipe."""
    done = set[int]()
    for each in standstills(trace_index):
        if each.peer is None or each.waiter.activity != "read":
            continue
        for state in each.peers:
            if state.activity not in ("other", "child") or state.call is None or state.process in done:
                continue
            child = _blocked_descendant(trace_index, state)
            if child is not None:
                done.add(state.process)
                yield _finding(trace_index, each, state, child)


def _blocked_descendant(trace_index: TraceIndex, state: ThreadState) -> _Descendant | None:
    """Return the descendant of a process that is blocked on a pipe of the trace, or None."""
    assert state.call is not None
    if state.activity == "other" and not state.call.name.startswith("read"):
        return None
    for blocked in trace_index.trace.blocked:
        if blocked.name not in _MOVING or state.process not in _ancestors(trace_index, blocked.process):
            continue
        here, there = _transfers(trace_index, blocked)
        if not here:
            continue
        if blocked.name in SENDING:
            is_between = not there and not _has_other_children(trace_index, blocked.process, state.process)
        else:
            is_between = {call.process for call in there} == {state.process}
        if is_between:
            return _Descendant(blocked, here[-1], sum(call.size for call in here))
    return None


def _ancestors(trace_index: TraceIndex, process: int) -> list[int]:
    """Return the processes that started a process: its parent, the parent of that one, and so on."""
    found: list[int] = []
    parent = trace_index.process(process).parent
    while parent is not None and parent not in found:
        found.append(parent)
        parent = trace_index.process(parent).parent
    return found


def _has_other_children(trace_index: TraceIndex, process: int, ancestor: int) -> bool:
    """Return whether another descendant of the ancestor runs, which may use the pipe."""
    line = {process, *_ancestors(trace_index, process)}
    return any(
        other not in line
        and ancestor in _ancestors(trace_index, other)
        and trace_index.ended_at(other) is None
        for other in trace_index.trace.processes
    )


def _transfers(trace_index: TraceIndex, blocked: Call) -> tuple[list[Call], list[Call]]:
    """Return what was moved at the end of the pipe that a process is blocked on, and at the other end.

    The call that blocks has no pipe in the trace, only a descriptor: its earlier transfers show the pipe.
    """
    sockets = trace_index.trace.sockets
    moved = [
        call
        for call in trace_index.trace.events()
        if isinstance(call, Call)
        and call.socket is not None
        and sockets[call.socket].family == "pipe"
        and call.at <= trace_index.end
    ]
    own = [
        call
        for call in moved
        if call.process == blocked.process
        and call.descriptor == blocked.descriptor
        and (call.name in SENDING) == (blocked.name in SENDING)
    ]
    if not own:
        return [], []
    end = sockets[own[-1].socket or 0]
    others = [call for call in moved if sockets[call.socket or 0].inode == end.peer_inode]
    return [call for call in own if call.socket == end.number], others


def _finding(trace_index: TraceIndex, each: Standstill, state: ThreadState, child: _Descendant) -> Finding:
    assert each.peer is not None
    server, client = name_of(trace_index, state.process), name_of(trace_index, each.waiter.process)
    known = executable_of(trace_index, child.blocked.process)
    program = f"The child{f' {formatting.quoted(known.encode(), len(known), 40)}' if known else ''}"
    is_writing = child.blocked.name in SENDING
    for_what = "for the exit of its child" if state.activity == "child" else "for the output of its child"
    waits = f"{capitalized(server)} waits in {call_name(state)} {for_what}, for {age(each, state)}"
    if is_writing:
        title = f"{capitalized(server)} waits for its child, which waits for room in a pipe that is not read"
        text = (
            f"{program} has written {bytes_text(child.total)} to descriptor "
            f"{child.blocked.descriptor}, and is blocked in {child.blocked.name}(): the pipe is full, and "
            f"{server} does not read it. {waits}."
        )
        remedy = (
            "Read all output of a child before you wait for its exit, and its two outputs at once: "
            "communicate() does both. Or let the child write to a file, or to /dev/null."
        )
        in_c = "while ((n = read(out[0], buf, sizeof buf)) > 0) keep(buf, n);   waitpid(pid, &status, 0);"
        in_python = "output, errors = child.communicate()   # instead of child.wait()"
    else:
        title = f"{capitalized(server)} waits for its child, which waits for more input or for its end"
        text = (
            f"{waits}. {program} has read {bytes_text(child.total)} from a pipe, and waits in "
            f"{call_name(child.blocked)} for more, or for EOF: probably it reads to the end, and {server} "
            "has not closed its end of the pipe."
        )
        remedy = (
            "Close the child's standard input after the last byte; communicate() does. If the child is to go "
            "on, end each request as it expects, flush, and let it flush its answers."
        )
        in_c = "close(in[1]);   /* the parent's writing end, and in the child every copy of it */"
        in_python = "output, _ = child.communicate(data)   # or child.stdin.close() before stdout.read()"
    return Finding(
        "child-pipe",
        title,
        f"{text} {capitalized(client)} waits in {call_name(each.waiter)} for {server}.",
        remedy,
        evidence(*each.sends(each.socket)[-1:], child.last, each.waiter, state, child.blocked),
        "seen" if is_writing else "inferred",
        "" if is_writing else "everything that was written to the child is read, and both wait",
        process=state.process,
        sockets=(each.socket.number, each.peer.number),
        in_c=in_c,
        in_python=in_python,
    )
