"""Two sockets on one port (SO_REUSEPORT), one of which is never read.

The kernel distributes datagrams and connections among all sockets of the port by a hash of the addresses.
What it gives to a socket that is not served is lost to the clients, although the server seems to work.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from bothends.socket_table import SocketEntry
from bothends.why import phrases
from bothends.why.problems import inactivity
from bothends.why.problems.problem import Problem, concerns
from bothends.why.wait_graph import WaitGraph

KIND = "shared port"


def find(graph: WaitGraph) -> Iterator[Problem]:
    """Yield each socket with unread input that no thread waits for, beside one that is served."""
    groups: dict[tuple[int, str, str, int], list[SocketEntry]] = defaultdict(list)
    for entry in graph.snapshot.sockets:
        is_server = entry.state == "LISTEN" or (entry.type == "dgram" and not entry.peer.port)
        if is_server and entry.local.port and entry.inode:
            groups[entry.netns, entry.protocol, entry.local.host, entry.local.port].append(entry)
    for group in groups.values():
        if len(group) < 2:
            continue
        for entry in group:
            served = [each for each in group if each is not entry and graph.waiting(each)]
            if entry.recv_queue and served and _is_neglected(graph, entry, served):
                yield _problem(graph, entry, served)


def _is_neglected(graph: WaitGraph, entry: SocketEntry, served: list[SocketEntry]) -> bool:
    """Whether every thread of the owners waits for another socket of the port, or has been away for long."""
    processes = graph.owners(entry)
    if not processes or graph.waiting(entry) or not all(process.is_readable for process in processes):
        return False
    inodes = {each.inode for each in served}
    return all(
        thread.is_stopped
        or (thread.is_settled and (thread.idle or 0.0) >= inactivity.BUSY_SECONDS)
        or (thread.call is not None and any(wait.inode in inodes for wait in thread.call.waits))
        for process in processes
        for thread in process.threads
    )


def _problem(graph: WaitGraph, entry: SocketEntry, served: list[SocketEntry]) -> Problem:
    if entry.state == "LISTEN":
        lost, what = phrases.count(entry.recv_queue or 0, "connection"), "connections"
    else:
        lost, what = f"{phrases.size(entry.recv_queue or 0)} of datagrams", "datagrams"
    number = len(served) + 1
    return Problem(
        KIND,
        f"{number} sockets share {phrases.connection(entry)}, and one of them is not read:"
        f" {phrases.owner(graph, entry)}, in which {lost} wait. The kernel distributes {what} among them, so"
        f" some clients get no answer. {phrases.owner(graph, served[0])} is served.",
        seen=f"inodes {entry.inode} and {', '.join(str(each.inode) for each in served)} with the same"
        " address; no thread waits for the first",
        inferred="that the first is left over: no thread of its owners waits for it",
        remedy=f"Close {phrases.owner(graph, entry)}, or read it as well.",
        **concerns([entry, *served]),
    )
