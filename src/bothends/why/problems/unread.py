"""Data that lies in a receive buffer while its program waits for something else."""

from __future__ import annotations

from collections.abc import Iterator

from bothends.socket_table import SocketEntry
from bothends.why import phrases
from bothends.why.problems import inactivity
from bothends.why.problems.problem import Problem, concerns
from bothends.why.wait_graph import WaitGraph

KIND = "unread"


def find(graph: WaitGraph) -> Iterator[Problem]:
    """Yield each connection with data that no thread will read soon."""
    for entry in graph.snapshot.sockets:
        if not entry.recv_queue or not entry.inode or not _has_data(entry):
            continue
        if not inactivity.is_ignored(graph, entry):
            continue
        held_up = inactivity.is_held_up(graph, entry)
        seconds = inactivity.idle_seconds(graph, entry)
        if entry.tcp is not None:
            seconds = min(seconds, entry.tcp.last_data_received_ms / 1000)
        if seconds < (inactivity.HELD_UP_SECONDS if held_up else inactivity.BUSY_SECONDS):
            continue
        yield _problem(graph, entry, seconds)


def _has_data(entry: SocketEntry) -> bool:
    """Whether the queue holds data that a program should read. A connection that the peer has closed counts a
    byte for its FIN, and is another kind of problem.
    """
    if entry.type == "dgram":
        return entry.family in ("inet", "inet6") and entry.protocol == "udp"
    return entry.state in ("ESTABLISHED", "CONNECTED")


def _problem(graph: WaitGraph, entry: SocketEntry, seconds: float) -> Problem:
    is_edge = any(thread.waits_for_inode(entry.inode) for thread in graph.waiting(entry))
    other = graph.peer(entry)
    waiting = [thread for thread in graph.waiting(other) if thread.is_settled] if other else []
    peer = f" {phrases.thread_name(graph, waiting[0])} waits for its answer." if waiting else ""
    unread = phrases.size(entry.recv_queue or 0)
    names = phrases.names(graph.owners(entry))
    reason = " Its epoll is edge-triggered (EPOLLET) and reports only new data." if is_edge else ""
    return Problem(
        KIND,
        f"{unread} on {phrases.connection(entry)} {'has' if entry.recv_queue == 1 else 'have'} been unread"
        f" for at least {phrases.duration(seconds)}:"
        f" no thread of {names} waits for them. {inactivity.instead(graph, entry)}.{reason}{peer}",
        seen=f"{entry.recv_queue:,} bytes in the receive buffer of {phrases.owner(graph, entry)}",
        remedy="With EPOLLET a program must read until EAGAIN." if is_edge else f"{names} must read.",
        seconds=seconds,
        is_wrong=not inactivity.is_blocked_by_output(graph, entry),
        **concerns([entry, *([other] if other else [])]),
    )
