"""Connections that wait in an accept queue, and queues that are full.

The kernel establishes connections up to the limit of listen(2) without the program. A client then waits for a
server that has not seen it. When the queue is full, Linux drops further SYNs, and clients repeat them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from bothends.socket_table import SocketEntry
from bothends.why import phrases
from bothends.why.problems import inactivity
from bothends.why.problems.problem import Problem, concerns
from bothends.why.wait_graph import WaitGraph

KIND = "accept queue"
_WAITING_SECONDS: Final = 3.0  # a server that serves one client after another is given this much time


def find(graph: WaitGraph) -> Iterator[Problem]:
    """Yield each listener with connections that nothing accepts, and each attempt that a full queue drops."""
    yield from _dropped_attempts(graph)
    listeners = [entry for entry in graph.snapshot.sockets if entry.state == "LISTEN" and entry.recv_queue]
    if not listeners:
        return
    queued: dict[int, list[SocketEntry]] = defaultdict(list)
    for entry in graph.snapshot.sockets:
        if entry.inode == 0 and entry.tcp is not None and (listener := graph.listener(entry)) is not None:
            queued[listener.inode].append(entry)
    for entry in listeners:
        if not inactivity.is_ignored(graph, entry):
            continue
        waiting = queued[entry.inode]
        seconds = inactivity.idle_seconds(graph, entry)
        if waiting:
            seconds = min(seconds, max(_age(each) for each in waiting))
        is_full = _is_full(entry)
        held_up = is_full or inactivity.is_held_up(graph, entry)
        if seconds >= (inactivity.HELD_UP_SECONDS if held_up else _WAITING_SECONDS):
            yield _problem(graph, entry, waiting, seconds, is_full=is_full)


def _dropped_attempts(graph: WaitGraph) -> Iterator[Problem]:
    for entry in graph.snapshot.sockets:
        is_repeated = entry.state == "SYN-SENT" and entry.timer is not None and entry.timer.retries >= 1
        listener = graph.target(entry) if is_repeated and entry.inode else None
        if listener is None or entry.timer is None or not _is_full(listener):
            continue
        yield Problem(
            KIND,
            f"{phrases.names(graph.owners(entry))} tries to connect to {phrases.address(entry.peer)}; its SYN"
            f" was sent {entry.timer.retries + 1} times and dropped, because the accept queue of"
            f" {phrases.names(graph.owners(listener))} is full. {inactivity.instead(graph, listener)}.",
            seen=f"{phrases.owner(graph, entry)} in SYN-SENT; {listener.recv_queue or 0:,} in the queue,"
            f" limit {listener.send_queue or 0:,}",
            remedy="It must call accept().",
            **concerns([entry, listener]),
        )


def _is_full(listener: SocketEntry) -> bool:
    """Whether the queue is longer than its limit: the kernel admits one more than listen(2) says."""
    return (listener.recv_queue or 0) > (listener.send_queue or 0)


def _age(entry: SocketEntry) -> float:
    """Return the seconds since a queued connection was established, or since its client last sent."""
    return entry.tcp.last_ack_received_ms / 1000 if entry.tcp else 0.0


def _problem(
    graph: WaitGraph, entry: SocketEntry, waiting: list[SocketEntry], seconds: float, *, is_full: bool
) -> Problem:
    number = entry.recv_queue or 0
    clients = list(
        dict.fromkeys(
            process for each in waiting if (other := graph.peer(each)) for process in _names(graph, other)
        )
    )
    by = f" of {', '.join(clients[:3])}{' and others' if len(clients) > 3 else ''}" if clients else ""
    full = " The queue is full: further connections are dropped, and clients repeat them." if is_full else ""
    verb = "waits" if number == 1 else "wait"
    return Problem(
        KIND,
        f"{phrases.count(number, 'connection')}{by} {verb} in the accept queue of"
        f" {phrases.connection(entry)} for at least {phrases.duration(seconds)}: no thread"
        f" of {phrases.names(graph.owners(entry))} accepts. {inactivity.instead(graph, entry)}.{full}",
        seen=f"{number:,} in the queue, limit {entry.send_queue or 0:,}; {phrases.owner(graph, entry)}",
        remedy="It must call accept().",
        seconds=seconds,
        **concerns([entry, *waiting, *(other for each in waiting if (other := graph.peer(each)))]),
    )


def _names(graph: WaitGraph, entry: SocketEntry) -> list[str]:
    return [str(process) for process in graph.owners(entry)]
