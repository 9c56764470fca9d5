"""Connections in CLOSE-WAIT: the peer has closed its direction, and the program has not closed the socket.

A client may half-close and wait for a long answer, and a connection pool notices the end only at its next
use. So a few connections, or a short time, are information.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from bothends.socket_table import SocketEntry
from bothends.why import phrases
from bothends.why.problems.problem import Problem, concerns
from bothends.why.wait_graph import WaitGraph

KIND = "close-wait"
_MANY: Final = 3
_MANY_SECONDS: Final = 5.0
_FEW_SECONDS: Final = 60.0
_NOTED_SECONDS: Final = 2.0


def find(graph: WaitGraph) -> Iterator[Problem]:
    """Yield each process that holds connections which their peers have closed."""
    by_pid: dict[int, list[SocketEntry]] = defaultdict(list)
    for entry in graph.snapshot.sockets:
        if entry.state == "CLOSE-WAIT" and not entry.send_queue and entry.tcp is not None:
            for pid in {owner.pid for owner in entry.owners}:
                by_pid[pid].append(entry)
    for pid, entries in by_pid.items():
        if pid in graph.snapshot.processes:
            # A thread that waits for the socket will see the end of file as soon as it runs.
            entries = [entry for entry in entries if not graph.waiting(entry)]
            old = [entry for entry in entries if _age(entry) >= _NOTED_SECONDS]
            if old:
                yield _problem(graph, pid, old)


def _age(entry: SocketEntry) -> float:
    """Return the seconds since the last packet, which was the FIN or came after it."""
    return entry.tcp.last_ack_received_ms / 1000 if entry.tcp else 0.0


def _problem(graph: WaitGraph, pid: int, entries: list[SocketEntry]) -> Problem:
    process = graph.snapshot.processes[pid]
    ages = [_age(entry) for entry in entries]
    oldest = max(ages)
    many = sum(age >= _MANY_SECONDS for age in ages) >= _MANY
    fds = sorted({owner.fd for entry in entries for owner in entry.owners if owner.pid == pid})
    shown = ", ".join(map(str, fds[:5])) + (", ..." if len(fds) > 5 else "")
    limit = (
        f"; {process.open_files:,} of {process.file_limit:,} descriptors are open"
        if (process.open_files and process.file_limit)
        else ""
    )
    unread = sum(1 for entry in entries if (entry.recv_queue or 0) > 1)
    it = "it" if len(entries) == 1 else "them"
    return Problem(
        KIND,
        f"{process} holds {phrases.count(len(entries), 'connection')} open that the peer has closed, the"
        f" oldest for at least {phrases.duration(oldest)}, and no thread waits for {it}.",
        seen=f"CLOSE-WAIT at descriptor{'' if len(fds) == 1 else 's'} {shown}"
        + (f", {unread:,} with unread data" if unread else "")
        + limit,
        remedy=f"It must close {it} when recv() returns 0.",
        seconds=oldest,
        is_wrong=many or oldest >= _FEW_SECONDS,
        **concerns(entries),
    )
