"""Connections that a client waits on, and that no thread of the server will use or close.

The server has answered, and all its threads wait for new clients. So it has finished with the connection
without closing it: a copy of the descriptor is left in the parent after fork(), or in a file object; or the
answer has no length and the client waits for its end. Without a request it is information: a server may greet
its first client and wait for the second.
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

KIND = "held open"
_SECONDS: Final = 2.0


def find(graph: WaitGraph) -> Iterator[Problem]:
    """Yield each connection whose client waits for data, and whose server waits for new clients only."""
    for thread in graph.snapshot.threads():
        if not thread.is_settled or thread.call is None or len(thread.call.waits) != 1:
            continue
        for wait, entry in graph.waits_for(thread):
            other = graph.peer(entry)
            if wait.need is not Need.DATA or entry.recv_queue or other is None or not other.inode:
                continue
            if (
                not entry.send_queue
                and not other.send_queue
                and not other.recv_queue
                and other.type == "stream"
            ):
                problem = _problem(graph, thread, entry, other)
                if problem is not None:
                    yield problem


def _problem(
    graph: WaitGraph, thread: ObservedThread, entry: SocketEntry, other: SocketEntry
) -> Problem | None:
    if entry.tcp is None or other.tcp is None or not entry.tcp.bytes_received:
        return None
    owners = graph.owners(other)
    if not owners or len(owners) < len({owner.pid for owner in other.owners}):
        return None
    if not all(_waits_for_clients(graph, each) for process in owners for each in process.threads):
        return None
    seconds = min(thread.idle or 0.0, inactivity.idle_seconds(graph, other), _quiet_seconds(entry))
    if seconds < _SECONDS:
        return None
    client, server = phrases.thread_name(graph, thread), phrases.names(owners)
    fds = phrases.owner(graph, other)
    return Problem(
        KIND,
        f"{client} waits in {phrases.call(thread)} for data or end of file on {phrases.connection(entry)}."
        f" The last of the {phrases.size(entry.tcp.bytes_received)} that it has received came"
        f" {phrases.duration(entry.tcp.last_data_received_ms / 1000)} ago. {server} still"
        f" {phrases.has(owners)} the other end open, and waits only for new clients:"
        f" {inactivity.instead(graph, other)}.",
        seen=f"{fds}: {phrases.connection(other)}, both queues empty; no thread of {server} waits for it",
        inferred=f"that {server} has finished with it: every thread waits for new clients only",
        remedy=f"Close every copy of the descriptor ({fds}): after fork() the parent's too, and the files of"
        " makefile(). Or send the length of the answer (Content-Length), so that the client does not wait for"
        " its end.",
        seconds=seconds,
        is_wrong=bool(other.tcp.bytes_received),
        **concerns([entry, other]),
    )


def _waits_for_clients(graph: WaitGraph, thread: ObservedThread) -> bool:
    """Whether a thread waits for nothing but connections to listening sockets, without a time limit."""
    if not thread.is_settled or thread.call is None or thread.call.timeout is not None:
        return False
    entries = [graph.by_inode.get(wait.inode) for wait in thread.call.waits]
    return bool(entries) and all(each is not None and each.state == "LISTEN" for each in entries)


def _quiet_seconds(entry: SocketEntry) -> float:
    return min(entry.tcp.last_data_sent_ms, entry.tcp.last_data_received_ms) / 1000 if entry.tcp else 0.0
