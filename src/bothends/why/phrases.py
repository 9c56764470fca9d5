"""Names, sizes, durations and states as text. Pure. All names in a snapshot are escaped already."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from bothends.osutil.blocked_calls import CallKind, Need
from bothends.socket_table import EntryAddress, SocketEntry
from bothends.why.model import ObservedProcess, ObservedThread
from bothends.why.wait_graph import WaitGraph, plain_host

_UNITS: Final = ("kB", "MB", "GB", "TB")
_MAX_NAMES: Final = 3  # of processes in one sentence
_NEED_TEXT: Final = {
    Need.DATA: "data",
    Need.SPACE: "space in its send buffer",
    Need.CONNECTION: "a client",
    Need.PEER: "the answer to its SYN",
}
_FILE_TEXT: Final = {
    "/dev/pts/": "its terminal",
    "/dev/tty": "its terminal",
    "/dev/console": "its terminal",
    "pipe:": "a pipe",
    "anon_inode:[eventfd]": "another of its threads (eventfd)",
    "anon_inode:[timerfd]": "a timer",
    "anon_inode:[signalfd]": "a signal",
    "anon_inode:inotify": "a change of files",
    "anon_inode:[eventpoll]": "a nested epoll descriptor",
}
_CALL_TEXT: Final = {
    "nanosleep": "sleeps",
    "clock_nanosleep": "sleeps",
    "wait4": "waits for a child process to exit",
    "waitid": "waits for a child process to exit",
    "pause": "waits for a signal",
    "rt_sigsuspend": "waits for a signal",
    "rt_sigtimedwait": "waits for a signal",
    "flock": "waits for a file lock",
    "fcntl": "waits for a file lock",
    "fsync": "waits for the disk",
    "io_uring_enter": "waits for an io_uring completion, which is not visible from here",
    "restart_syscall": "continues a wait that a signal interrupted",
}


def size(count: int) -> str:
    """Return a number of bytes: `0 bytes`, `625 kB`, `2.4 MB`."""
    if count < 1000:
        return f"{count} byte{'' if count == 1 else 's'}"
    value = float(count)
    for unit in _UNITS:
        value /= 1000
        if value < 999.5 or unit == _UNITS[-1]:
            break
    return f"{value:.0f} {unit}" if value >= 9.95 else f"{value:.1f} {unit}"


def duration(seconds: float) -> str:
    """Return a duration: `0.7 s`, `12 s`, `3 min`, `2 h`, `4 days`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def count(number: int, noun: str) -> str:
    """Return a number with its noun: `1 connection`, `2 connections`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def address(each: EntryAddress) -> str:
    """Return `host:port`, with brackets around IPv6; a path for a UNIX socket."""
    if not each.port:
        return each.host or "unnamed"
    host = plain_host(each.host)
    return f"[{host}]:{each.port}" if ":" in host else f"{host}:{each.port}"


def connection(entry: SocketEntry) -> str:
    """Return a connection as `tcp 127.0.0.1:40112 -> 127.0.0.1:12000`, from this end."""
    if entry.family == "unix":
        name = entry.local.host or entry.peer.host
        return f"{entry.kind} {name}" if name else f"{entry.kind} pair, inode {entry.inode}"
    if not entry.peer.port:
        return f"{entry.kind.removesuffix('6')} {address(entry.local)}"
    return f"{entry.kind.removesuffix('6')} {address(entry.local)} -> {address(entry.peer)}"


def names(processes: Iterable[ObservedProcess]) -> str:
    """Return the names of processes: `a[1]`, `a[1] and b[2]`, `a[1], b[2] and 7 others`."""
    found = [str(process) for process in processes]
    if not found:
        return "a process that is not visible"
    if len(found) > _MAX_NAMES:
        return f"{', '.join(found[: _MAX_NAMES - 1])} and {len(found) - _MAX_NAMES + 1} others"
    return f"{', '.join(found[:-1])} and {found[-1]}" if len(found) > 1 else found[0]


def has(processes: Collection[ObservedProcess]) -> str:
    """Return the verb after `names(processes)`."""
    return "have" if len(processes) > 1 else "has"


def owner(graph: WaitGraph, entry: SocketEntry) -> str:
    """Return the owners of a socket, each with its descriptor: `server.py[407] fd 4`."""
    found = [
        f"{graph.snapshot.processes.get(each.pid, each.name)} fd {each.fd}"
        for each in entry.owners[:_MAX_NAMES]
    ]
    if len(entry.owners) > _MAX_NAMES:
        found.append(f"{len(entry.owners) - _MAX_NAMES} more")
    return ", ".join(found) or "no visible process"


def thread_name(graph: WaitGraph, thread: ObservedThread) -> str:
    """Return a thread's process, and its thread id if it is not the only thread."""
    process = graph.snapshot.processes[thread.pid]
    return str(process) if len(process.threads) == 1 else f"{process} thread {thread.tid}"


def call(thread: ObservedThread) -> str:
    """Return a call with its descriptor: `recv(3)`, `poll() on descriptor 3`, `select() on 9 descriptors`."""
    if thread.call is None:
        return "no call"
    fds = sorted({wait.fd for wait in thread.call.waits})
    if thread.call.direct and fds:
        return f"{thread.call.name}({fds[0]})"
    if not fds:
        return f"{thread.call.name or 'an unknown call'}{'()' if thread.call.name.isidentifier() else ''}"
    which = f"descriptor {fds[0]}" if len(fds) == 1 else f"{len(fds):,} descriptors"
    return f"{thread.call.name}() on {which}"


def doing(graph: WaitGraph, thread: ObservedThread) -> str:
    """Return what a thread does, as a predicate: `waits in accept(3) for a client`, `is stopped`, `runs`."""
    return _activity(graph, thread) + line(thread)


def line(thread: ObservedThread) -> str:
    """Return the line of a Python program that a thread is at, as an apposition; "" if it is not known."""
    return f", at {thread.source}" if thread.source else ""


def _activity(graph: WaitGraph, thread: ObservedThread) -> str:
    if thread.is_stopped:
        return "is stopped by a signal or a debugger"
    if thread.call is None:
        return "runs" if thread.readable else "does something that is not visible to this user"
    option = f" ({thread.call.option})" if thread.call.option else ""
    limit = f", {duration(thread.call.timeout)} at most{option}" if thread.call.timeout is not None else ""
    if thread.call.kind is CallKind.TIME:
        return f"sleeps in {thread.call.name}(){limit}"
    if thread.call.kind is CallKind.THREADS:
        return "waits for another of its threads (a lock or a queue)"
    if thread.call.kind is CallKind.OTHER:
        if thread.call.name in _CALL_TEXT:
            return _CALL_TEXT[thread.call.name]
        return f"is in {call(thread)}" if thread.call.name else "is blocked in an unknown call"
    whole = f", all {thread.call.whole:,} bytes of it (MSG_WAITALL)" if thread.call.whole else ""
    return f"waits in {call(thread)}{limit}{_target(graph, thread)}{whole}"


def _target(graph: WaitGraph, thread: ObservedThread) -> str:
    """Return what a call on descriptors waits for: ` for data on tcp ...`, ` for a client on tcp ...`."""
    if thread.call is None or not thread.call.waits:
        return ""
    process = graph.snapshot.processes[thread.pid]
    found = []
    for wait in thread.call.waits[: _MAX_NAMES + 1]:
        if (entry := graph.by_inode.get(wait.inode)) is not None:
            need = "a client" if entry.state == "LISTEN" else _NEED_TEXT[wait.need]
            if entry.type == "dgram" and wait.need is Need.DATA:
                need = "a datagram"
            found.append(f"{need} on {connection(entry)}")
        else:
            found.append(file_text(process.files.get(wait.fd, "")))
    found = list(dict.fromkeys(found))
    if len(thread.call.waits) > _MAX_NAMES:
        found = [*found[:2], "others"]
    return f" for {' or '.join(found)}"


def file_text(target: str) -> str:
    """Return what a descriptor that is not a socket stands for."""
    found = next((text for prefix, text in _FILE_TEXT.items() if target.startswith(prefix)), "")
    return found or (target if target.startswith("/") else "another kind of file")


def main_activity(graph: WaitGraph, process: ObservedProcess) -> str:
    """Return what a process does: its only thread, the number of those that run, or its first thread."""
    if process.is_stopped:
        return "is stopped by a signal or a debugger"
    busy = [thread for thread in process.threads if thread.call is None and thread.readable]
    if len(process.threads) == 1:
        return doing(graph, process.threads[0])
    if busy:
        return f"has {count(len(process.threads), 'thread')}, of which {len(busy)} run"
    first = min(process.threads, key=lambda thread: (thread.call is None, thread.tid != thread.pid))
    return f"has {count(len(process.threads), 'thread')}; the first one {doing(graph, first)}"
