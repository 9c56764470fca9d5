"""What /proc says about a process and its children (proc(5)). Linux."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
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
        """Dead, and its parent has not asked for its status."""
        return self.state == "Z"

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid}, {self.state})"


def read_process(pid: int) -> ProcessInfo | None:
    """A process, or None if there is none of this number."""
    try:
        # Every test asks for all there are, twice: by two calls each, not by the ten of a text file.
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        try:
            text = os.read(file, _STAT_SIZE).decode(errors="replace")
        finally:
            os.close(file)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name is in parentheses and may hold any character, so what follows is found from its end.
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    ticks = sum(int(field) for field in fields[11:15])
    return ProcessInfo(
        pid, name, fields[0], int(fields[1]), int(fields[2]), ticks / _TICKS, int(fields[21]) * _PAGE
    )


def all_processes() -> Iterator[ProcessInfo]:
    """All processes that there are."""
    for entry in os.listdir("/proc"):  # noqa: PTH208  (half the time of iterdir, and we ask often)
        if entry.isdigit() and (process := read_process(int(entry))):
            yield process


def process_tree(pid: int) -> list[ProcessInfo]:
    """A process and all that descend from it, zombies included; empty if it is gone."""
    everybody = list(all_processes())
    found = [each for each in everybody if each.pid == pid]
    for each in found:  # grows meanwhile
        found += [child for child in everybody if child.parent == each.pid]
    return found


def descriptors(pid: int | str = "self") -> dict[int, str]:
    """The open descriptors of a process, each with what it refers to, as in `socket:[123]`.

    Empty for a process that is gone.
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
            continue  # closed meanwhile: the one that the listing itself used, for example
    return found


def limit_descriptors(pid: int, spare: int) -> int:
    """Let a running process open only `spare` more descriptors; its limit before (RLIMIT_NOFILE).

    The limit bounds the numbers of descriptors, not how many there are, so gaps count.
    """
    taken = descriptors(pid)
    limit = 0
    while spare or limit in taken:
        spare -= limit not in taken
        limit += 1
    return set_descriptor_limit(pid, limit)


def set_descriptor_limit(pid: int, limit: int) -> int:
    """Set the soft RLIMIT_NOFILE of a running process; what it was."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
    return soft
