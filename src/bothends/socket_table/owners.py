"""Which process owns which socket, by which descriptor: /proc/PID/fd of proc(5).

The descriptors of a process are readable for its own user and for root (PTRACE_MODE_READ, ptrace(2)). Of
other processes only the existence is visible.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bothends.errors import SystemCallFailed
from bothends.escaping import escape, escape_text
from bothends.osutil.process_info import all_pids
from bothends.socket_table.entry import SocketOwner

NAMED_NAMESPACES: Final = Path("/run/netns")  # ip-netns(8)


@dataclass(frozen=True, slots=True)
class SocketOwners:
    """The owners of sockets, by the inode of the socket; `unreadable` counts inaccessible processes."""

    by_inode: dict[int, list[SocketOwner]] = field(default_factory=dict)
    unreadable: int = 0
    netns_by_pid: dict[int, int] = field(default_factory=dict)  # pid -> inode of its network namespace


def find_owners(pids: Sequence[int] = ()) -> SocketOwners:
    """Find the sockets of these processes, or of all processes.

    Raises SystemCallFailed if one of `pids` is not accessible.
    """
    found = SocketOwners()
    unreadable = 0
    for pid in pids or all_pids():
        try:
            sockets = list(process_sockets(pid))
        except PermissionError as error:
            if pids:
                raise SystemCallFailed(
                    "read",
                    f"the descriptors of process {pid}",
                    error.errno or 0,
                    "only its user and root can read them",
                ) from error
            unreadable += 1
            continue
        except OSError:  # the process has exited
            continue
        if sockets:
            name = process_name(pid)
            for fd, inode in sockets:
                found.by_inode.setdefault(inode, []).append(SocketOwner(pid, name, fd))
            found.netns_by_pid[pid] = netns_inode(pid)
    return SocketOwners(found.by_inode, unreadable, found.netns_by_pid)


def pids_by_name(name: str) -> list[int]:
    """Return the processes whose comm (15 bytes), program or script has this name."""
    return sorted(pid for pid in all_pids() if name in process_names(pid))


def process_names(pid: int) -> set[str]:
    """Return the names of a process: comm, program and script. Empty if it has exited."""
    folder = Path(f"/proc/{pid}")
    try:
        comm = (folder / "comm").read_bytes().removesuffix(b"\n")
        words = (folder / "cmdline").read_bytes().split(b"\0")[:2]
    except OSError:
        return set()
    return {os.fsdecode(comm), *(os.path.basename(os.fsdecode(word)) for word in words)} - {""}  # noqa: PTH119


def process_name(pid: int) -> str:
    """Return the comm of a process, escaped because a process can set it freely; "" if it has exited."""
    try:
        return escape(Path(f"/proc/{pid}/comm").read_bytes().removesuffix(b"\n"))
    except OSError:
        return ""


def process_sockets(pid: int) -> Iterator[tuple[int, int]]:
    """Yield descriptor and inode of each socket of a process. Raises OSError if it is not accessible."""
    folder = f"/proc/{pid}/fd"
    for entry in os.listdir(folder):  # noqa: PTH208
        try:
            target = os.readlink(f"{folder}/{entry}")  # noqa: PTH115
        except FileNotFoundError:  # closed in the meantime
            continue
        if target.startswith("socket:["):
            yield int(entry), int(target[8:-1])


def netns_inode(pid: int | str) -> int:
    """Return the inode of a process's network namespace; 0 if it is not accessible."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino  # noqa: PTH116
    except OSError:
        return 0


def netns_name(inode: int) -> str:
    """Return the name of a network namespace: that of ip-netns(8), or its inode as in "net:[4026532456]"."""
    with contextlib.suppress(OSError):
        for path in sorted(NAMED_NAMESPACES.iterdir()):
            with contextlib.suppress(OSError):
                if path.stat().st_ino == inode:
                    return escape_text(path.name)
    return f"net:[{inode}]"
