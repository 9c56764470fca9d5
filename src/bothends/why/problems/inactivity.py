"""Judge whether the owner of a socket will come back to it: shared by the kinds of problems.

Data may lie in a buffer for a while because its program is busy. So a short time counts only if the program
is held up by something that does not end by itself; otherwise a long one is needed.
"""

from __future__ import annotations

from typing import Final

from bothends.osutil.blocked_calls import Need
from bothends.socket_table import SocketEntry
from bothends.why import phrases
from bothends.why.model import ObservedProcess, ObservedThread
from bothends.why.wait_graph import WaitGraph

HELD_UP_SECONDS: Final = 1.0
BUSY_SECONDS: Final = 10.0  # longer than a request to a slow backend, or the pause of a rate limit


def is_ignored(graph: WaitGraph, entry: SocketEntry) -> bool:
    """Whether no thread of the owners will notice the data in a socket's buffer.

    All their threads must be blocked or stopped, and none of them wait for data on this socket, except
    through an edge-triggered epoll, which does not report data that is already there.
    """
    processes = graph.owners(entry)
    if not processes or len(processes) < len({owner.pid for owner in entry.owners}):
        return False
    threads = [thread for process in processes for thread in process.threads]
    return all(thread.is_stopped or thread.is_settled for thread in threads) and not any(
        reads(thread, entry) for thread in threads if not thread.is_stopped
    )


def reads(thread: ObservedThread, entry: SocketEntry) -> bool:
    """Whether a thread waits for a socket so that new or old data, or a new connection, ends the wait."""
    return thread.call is not None and any(
        wait.inode == entry.inode and wait.need in (Need.DATA, Need.CONNECTION) and not wait.edge
        for wait in thread.call.waits
    )


def is_held_up(graph: WaitGraph, entry: SocketEntry) -> bool:
    """Whether the owners are stopped, at a prompt, in a deadlock, or waiting for an edge that has passed."""
    stuck = graph.stuck()
    return any(
        thread.is_stopped
        or thread.tid in stuck
        or is_at_terminal(process, thread)
        or (thread.waits_for_inode(entry.inode) and not reads(thread, entry) and bool(entry.recv_queue))
        for process in graph.owners(entry)
        for thread in process.threads
    )


def is_at_terminal(process: ObservedProcess, thread: ObservedThread) -> bool:
    """Whether a thread waits for input from a terminal, and for nothing else."""
    return (
        thread.call is not None
        and len(thread.call.waits) == 1
        and all(
            process.files.get(wait.fd, "").startswith(("/dev/pts/", "/dev/tty")) for wait in thread.call.waits
        )
    )


def is_blocked_by_output(graph: WaitGraph, entry: SocketEntry) -> bool:
    """Whether an owner waits for space in a pipe, a terminal or a file: `curl ... | less`, for example."""
    return any(
        wait.need is Need.SPACE and wait.inode not in graph.by_inode
        for process in graph.owners(entry)
        for thread in process.threads
        for wait in (thread.call.waits if thread.call else ())
    )


def idle_seconds(graph: WaitGraph, entry: SocketEntry) -> float:
    """Return for how long the threads of the owners have been blocked, at least."""
    known = [
        thread.idle or 0.0
        for process in graph.owners(entry)
        for thread in process.threads
        if not thread.is_stopped or thread.idle is not None
    ]
    return min(known, default=0.0)


def instead(graph: WaitGraph, entry: SocketEntry) -> str:
    """Return what the owners of a socket do: `server.py[1] waits in recv(4) for ...`."""
    found = [f"{process} {phrases.main_activity(graph, process)}" for process in graph.owners(entry)[:3]]
    return "; ".join(found) or "its process is not visible to this user"
