"""Senders that are held up: the other end does not read, so its window is zero or its buffer full.

A transfer that is slow but moves is no problem: the time since the last data was sent must be long, and so
must the time since the reader ran.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.osutil.blocked_calls import Need
from bothends.socket_table import SocketEntry
from bothends.why import phrases
from bothends.why.model import ObservedThread
from bothends.why.problems import inactivity
from bothends.why.problems.problem import Problem, concerns
from bothends.why.wait_graph import WaitGraph

KIND = "stalled"
_OTHERS_WAIT_SECONDS: Final = 3.0  # if other clients of the sender wait meanwhile


def find(graph: WaitGraph) -> Iterator[Problem]:
    """Yield each connection whose sender has waited too long for the reader."""
    for entry in graph.snapshot.sockets:
        if not entry.send_queue or not entry.inode or entry.state == "LISTEN" or entry.type == "dgram":
            continue
        sender = _sender(graph, entry)
        is_zero = entry.timer is not None and entry.timer.kind == "probe"
        if sender is None and not is_zero:
            continue
        other = graph.peer(entry)
        seconds = _standing(graph, entry, sender)
        problem = _local(graph, entry, other, seconds) if other else _remote(graph, entry, seconds, is_zero)
        if problem is not None:
            yield problem


def _sender(graph: WaitGraph, entry: SocketEntry) -> ObservedThread | None:
    """Return a settled thread that waits for space in the send buffer of a socket."""
    for thread in graph.waiting(entry):
        if thread.is_settled and thread.call is not None:
            for wait in thread.call.waits:
                if wait.inode == entry.inode and wait.need is Need.SPACE:
                    return thread
    return None


def _standing(graph: WaitGraph, entry: SocketEntry, sender: ObservedThread | None) -> float:
    """Return the seconds since anything was sent."""
    if entry.tcp is not None:
        return entry.tcp.last_data_sent_ms / 1000
    return sender.idle or 0.0 if sender else 0.0


def _local(graph: WaitGraph, entry: SocketEntry, other: SocketEntry, seconds: float) -> Problem | None:
    if not other.recv_queue or not inactivity.is_ignored(graph, other):
        return None
    behind = _behind(graph, entry)
    needed = inactivity.HELD_UP_SECONDS if inactivity.is_held_up(graph, other) else inactivity.BUSY_SECONDS
    if behind:
        needed = min(needed, _OTHERS_WAIT_SECONDS)
    if seconds < needed:
        return None
    owners = phrases.names(graph.owners(entry))
    readers = phrases.names(graph.owners(other))
    unsent = entry.send_queue or 0
    return Problem(
        KIND,
        f"{owners} {phrases.has(graph.owners(entry))} been unable to send on {phrases.connection(entry)}"
        f" for at least {phrases.duration(seconds)}: {readers} does not read."
        f" {inactivity.instead(graph, other)}.{behind}",
        seen=f"{other.recv_queue:,} bytes unread at {phrases.owner(graph, other)}"
        + (f"; {unsent:,} bytes wait at {phrases.owner(graph, entry)}" if entry.family != "unix" else "")
        + ("; the window is zero" if entry.timer and entry.timer.kind == "probe" else ""),
        remedy=f"{readers} must read, or close the connection.",
        seconds=seconds,
        is_wrong=not inactivity.is_blocked_by_output(graph, other),
        **concerns([entry, other]),
    )


def _remote(graph: WaitGraph, entry: SocketEntry, seconds: float, is_zero: bool) -> Problem | None:
    if not is_zero or seconds < inactivity.BUSY_SECONDS:
        return None
    owners = graph.owners(entry)
    return Problem(
        KIND,
        f"{phrases.names(owners)} {phrases.has(owners)} been unable to send on {phrases.connection(entry)}"
        f" for at least {phrases.duration(seconds)}: the window of the other end is zero.",
        seen=f"{entry.send_queue or 0:,} bytes wait at {phrases.owner(graph, entry)}; window probes are"
        " answered",
        inferred="that the program at the other end does not read: its kernel answers, with a window of zero",
        remedy="The program at the other end must read.",
        seconds=seconds,
        **concerns([entry]),
    )


def _behind(graph: WaitGraph, entry: SocketEntry) -> str:
    """Return which clients wait because the sender is held up."""
    waiting = [
        each
        for process in graph.owners(entry)
        if len(process.threads) == 1
        and process.threads[0].call is not None
        and process.threads[0].call.direct
        and process.threads[0].waits_for_inode(entry.inode)
        for each in graph.sockets_of(process.pid)
        if each.recv_queue and each.inode != entry.inode
    ]
    if not waiting:
        return ""
    number = phrases.count(len(waiting), "other socket")
    return f" Meanwhile {phrases.names(graph.owners(entry))} does not serve {number} with unread input."
