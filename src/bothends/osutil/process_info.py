"""Read processes, their threads, descendants and descriptors from /proc (proc(5)). Linux.

The only walker of process trees, except for `reaper.py`, which runs as a program
and imports the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")

# More than any line of /proc/PID/stat: 52 numbers, and a name of 64 bytes at most.
_STAT_SIZE: Final = 4096
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One line of /proc/PID/stat. `cpu` in seconds, its reaped children's included; `rss` in bytes."""

    pid: int
    name: str
    state: str
    parent: int
    group: int
    cpu: float
    rss: int

    @property
    def is_zombie(self) -> bool:
        """Whether it has exited and its parent has not waited for it yet."""
        return self.state == "Z"

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid}, {self.state})"


def read_process(pid: int) -> ProcessInfo | None:
    """Return a process, or None if there is no process with this id."""
    fields = read_stat(pid)
    if not fields:
        return None
    name, *rest = fields
    ticks = sum(int(field) for field in rest[11:15])
    return ProcessInfo(pid, name, rest[0], int(rest[1]), int(rest[2]), ticks / _TICKS, int(rest[21]) * _PAGE)


def read_stat(pid: int, tid: int | None = None) -> list[str]:
    """Return the fields of /proc/PID/stat, or of one of its threads, from the name on.

    The first is the name without its parentheses, then come the state, the parent and so on (proc(5)).
    Empty if the process is gone.
    """
    path = f"/proc/{pid}/stat" if tid is None else f"/proc/{pid}/task/{tid}/stat"
    try:
        # Two system calls, where a text file takes ten: the test harness reads every process twice a test.
        file = os.open(path, os.O_RDONLY)
        try:
            text = os.read(file, _STAT_SIZE).decode(errors="replace")
        finally:
            os.close(file)
    except OSError:
        return []
    # The name is in parentheses and may hold any character, so the other fields are found from its end.
    name, _, rest = text.partition("(")[2].rpartition(")")
    return [name, *rest.split()]


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    return read_stat(pid)[1:2] not in ([], ["Z"], ["X"])


def all_pids() -> Iterator[int]:
    """Yield the ids of all processes that this process may see."""
    for entry in os.listdir("/proc"):  # noqa: PTH208  (half the time of iterdir)
        if entry.isdigit():
            yield int(entry)


def all_processes() -> Iterator[ProcessInfo]:
    """Yield all processes that this process may see."""
    return (process for pid in all_pids() if (process := read_process(pid)) is not None)


def thread_ids(pid: int) -> list[int]:
    """Return the ids of a process's threads; empty if the process is gone."""
    with contextlib.suppress(OSError):
        return [int(entry) for entry in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208
    return []


def descendants(pid: int, limit: int | None = None) -> Iterator[int]:
    """Yield the children of a process, their children and so on, zombies included.

    Read from /proc/PID/task/TID/children (proc(5)), so a process that forks meanwhile may be missed. `limit`
    bounds the walk, because a fork bomb outruns it: it ends once more than `limit` processes are found.
    """
    found = [pid]
    for each in found:  # grows during the walk
        if limit is not None and len(found) > limit:
            return
        for tid in thread_ids(each):
            started = children(each, tid)
            yield from started
            found += started


def children(pid: int, tid: int) -> list[int]:
    """Return the ids of the processes that a thread has started, zombies included; empty if it is gone."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/task/{tid}/children").read_text(encoding="ascii")
        return [int(word) for word in text.split()]
    return []


def process_tree(pid: int) -> list[ProcessInfo]:
    """Return a process and its descendants, zombies included; empty if it is gone."""
    return [process for each in (pid, *descendants(pid)) if (process := read_process(each)) is not None]


def scheduling_times(pid: int) -> tuple[float, float]:
    """Return the seconds that a process's threads ran, and that they waited for a processor (schedstat)."""
    ran = waited = 0
    for tid in thread_ids(pid):
        with contextlib.suppress(OSError, ValueError):
            fields = Path(f"/proc/{pid}/task/{tid}/schedstat").read_text(encoding="ascii").split()
            ran, waited = ran + int(fields[0]), waited + int(fields[1])
    return ran / 1e9, waited / 1e9


def descriptors(pid: int | str = "self") -> dict[int, str]:
    """Return the open descriptors of a process and what each refers to, such as `socket:[123]`.

    Empty if the process is gone.
    """
    found = {}
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208
    except (FileNotFoundError, ProcessLookupError):
        return {}
    for number in numbers:
        try:
            found[int(number)] = os.readlink(f"/proc/{pid}/fd/{number}")  # noqa: PTH115
        except OSError:
            continue  # closed meanwhile, as the descriptor of the listing itself is
    return found


def limit_descriptors(pid: int, spare: int) -> int:
    """Let a running process open only `spare` more descriptors. Returns its previous soft RLIMIT_NOFILE.

    The limit bounds the descriptors' numbers, not their count, so gaps count (getrlimit(2)).
    """
    taken = descriptors(pid)
    limit = 0
    while spare or limit in taken:
        spare -= limit not in taken
        limit += 1
    return set_descriptor_limit(pid, limit)


def set_descriptor_limit(pid: int, limit: int) -> int:
    """Set the soft RLIMIT_NOFILE of a running process. Returns its previous value."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
    return soft
