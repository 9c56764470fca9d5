"""Which process holds which socket, by which descriptor: /proc/PID/fd of proc(5).

A process's descriptors are shown to its own user and to root (PTRACE_MODE_READ, ptrace(2)). Of others' we
only learn that they are there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bothends.errors import SystemCallFailed
from bothends.escaping import escape
from bothends.osutil.process_info import all_pids
from bothends.socket_table.entry import SocketOwner


@dataclass(frozen=True, slots=True)
class SocketOwners:
    """Who holds what. `of`: inode of a socket -> holders. `hidden`: processes that we may not look into."""

    by_inode: dict[int, list[SocketOwner]] = field(default_factory=dict)
    unreadable: int = 0
    netns_by_pid: dict[int, int] = field(default_factory=dict)  # pid -> inode of its network namespace


def find_owners(pids: Sequence[int] = ()) -> SocketOwners:
    """Who holds sockets: among these processes, or among all.

    Raises SystemRefused where one that is asked for may not be looked into.
    """
    found = SocketOwners()
    hidden = 0
    for pid in pids or all_pids():
        try:
            sockets = list(process_sockets(pid))
        except PermissionError as error:
            if pids:
                raise SystemCallFailed(
                    "read",
                    f"the descriptors of process {pid}",
                    error.errno or 0,
                    "they are shown to its user and to root",
                ) from error
            hidden += 1
            continue
        except OSError:  # it has gone
            continue
        if sockets:
            name = process_name(pid)
            for fd, inode in sockets:
                found.by_inode.setdefault(inode, []).append(SocketOwner(pid, name, fd))
            found.netns_by_pid[pid] = netns_inode(pid)
    return SocketOwners(found.by_inode, hidden, found.netns_by_pid)


def pids_by_name(name: str) -> list[int]:
    """The processes of this name: what the kernel calls it (comm, 15 bytes), its program, or its script."""
    return sorted(pid for pid in all_pids() if name in process_names(pid))


def process_names(pid: int) -> set[str]:
    """What a process may be called; empty for one that is gone."""
    folder = Path(f"/proc/{pid}")
    try:
        comm = (folder / "comm").read_bytes().removesuffix(b"\n")
        words = (folder / "cmdline").read_bytes().split(b"\0")[:2]
    except OSError:
        return set()
    return {os.fsdecode(comm), *(os.path.basename(os.fsdecode(word)) for word in words)} - {""}  # noqa: PTH119


def process_name(pid: int) -> str:
    """What the kernel calls a process; empty for one that is gone. Escaped: any may call itself anything."""
    try:
        return escape(Path(f"/proc/{pid}/comm").read_bytes().removesuffix(b"\n"))
    except OSError:
        return ""


def process_sockets(pid: int) -> Iterator[tuple[int, int]]:
    """The sockets of a process: descriptor and inode. Raises OSError where it may not be looked into."""
    folder = f"/proc/{pid}/fd"
    for entry in os.listdir(folder):  # noqa: PTH208
        try:
            target = os.readlink(f"{folder}/{entry}")  # noqa: PTH115
        except FileNotFoundError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            yield int(entry), int(target[8:-1])


def netns_inode(pid: int | str) -> int:
    """Which network namespace a process is in, as its inode; 0 where we are not told."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino  # noqa: PTH116
    except OSError:
        return 0
