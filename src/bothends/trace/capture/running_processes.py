"""Processes that run already: which they are, and the sockets that they have open.

Found by a port, by a control group (cgroups(7)) or by a container, which is a control group whose name holds
the id of the container. What a process did before is not known: only its descriptors are, and the interest
lists of its epoll instances (/proc/PID/fd and /proc/PID/fdinfo of proc(5)).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, get_args

from bothends.errors import SystemCallFailed, UnknownName
from bothends.socket_table import sock_diag
from bothends.socket_table.entry import SocketEntry
from bothends.socket_table.owners import find_owners, process_sockets
from bothends.trace.capture.arguments import SocketLabel
from bothends.trace.capture.descriptors import DescriptorTable, EpollInterest, OpenFile, SocketRegistry
from bothends.trace.model import Socket, SocketAddress, SocketFamily, SocketKind

_CGROUPS: Final = Path("/sys/fs/cgroup")
_EPOLL_LINE: Final = re.compile(r"^tfd:\s*(\d+) events:\s*([0-9a-f]+) data:\s*([0-9a-f]+)", re.MULTILINE)
_FLAGS_LINE: Final = re.compile(r"^flags:\s*([0-7]+)", re.MULTILINE)
_EPOLL_EVENTS: Final = {0x1: "EPOLLIN", 0x4: "EPOLLOUT", 0x2000: "EPOLLRDHUP", 1 << 31: "EPOLLET"}
_ENGINES: Final = ("docker", "podman", "nerdctl")  # programs that know the names of containers


@dataclass(slots=True)
class OpenFiles:
    """The open files of a process, by descriptor.

    `sockets` are those that the kernel lists; `listening` and `nonblocking` are descriptors of them.
    `interest_lists`: of each epoll instance, descriptor -> (events, data).
    """

    sockets: dict[int, SocketLabel] = field(default_factory=dict)
    listening: set[int] = field(default_factory=set)
    nonblocking: set[int] = field(default_factory=set)
    interest_lists: dict[int, dict[int, tuple[str, int]]] = field(default_factory=dict)

    def add_to(self, table: DescriptorTable, registry: SocketRegistry) -> Iterator[Socket]:
        """Add them to the descriptor table of the process. Returns the sockets."""
        for number, label in self.sockets.items():
            socket = registry.find_or_create(label)
            socket.is_listener = number in self.listening
            socket.blocks = number not in self.nonblocking
            table.put(number, OpenFile(socket))
            yield socket
        for number, interests in self.interest_lists.items():
            interest_list = {}
            for each, (events, data) in interests.items():
                open_file = table[each]
                interest_list[each] = EpollInterest(open_file.socket if open_file else None, events, data)
            table.put(number, OpenFile(interest_list=interest_list))


def read_open_files(pid: int) -> OpenFiles:
    """Return the open files of a process: none if it has exited or may not be read."""
    found = OpenFiles()
    with contextlib.suppress(OSError):
        entries = {each.inode: each for each in sock_diag.dump_namespace(pid) if each.inode}
        for descriptor, inode in process_sockets(pid):
            if inode not in entries:
                continue
            found.sockets[descriptor] = _label(entries[inode])
            if entries[inode].state == "LISTEN":
                found.listening.add(descriptor)
            flags = _FLAGS_LINE.search(_fdinfo(pid, descriptor))
            if flags and int(flags[1], 8) & os.O_NONBLOCK:
                found.nonblocking.add(descriptor)
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"/proc/{pid}/fd/{name}") == "anon_inode:[eventpoll]":  # noqa: PTH115
                    found.interest_lists[int(name)] = {
                        int(each[1]): (_event_names(int(each[2], 16)), int(each[3], 16))
                        for each in _EPOLL_LINE.finditer(_fdinfo(pid, int(name)))
                    }
    return found


def _fdinfo(pid: int, descriptor: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text(encoding="ascii")
    return ""


def _event_names(events: int) -> str:
    return "|".join(name for bit, name in _EPOLL_EVENTS.items() if events & bit)


def _label(entry: SocketEntry) -> SocketLabel:
    family: SocketFamily = entry.family if entry.family in get_args(SocketFamily) else "other"  # type: ignore[assignment]
    kinds: dict[str, SocketKind] = {"dgram": "datagram", "datagram": "datagram", "seqpacket": "seqpacket"}
    is_inet = family in ("inet", "inet6")
    ends = [
        SocketAddress(end.host.removeprefix("::ffff:") if "." in end.host else end.host, end.port)
        if is_inet
        else SocketAddress(end.host)
        for end in (entry.local, entry.peer)
    ]
    local = ends[0] if entry.local.host or entry.local.port else None
    peer = ends[1] if entry.peer.port else None
    return SocketLabel(
        family,
        kinds.get(entry.type, "stream"),
        entry.inode,
        entry.peer_inode,
        local,
        peer if is_inet else None,
    )


def pids_at_port(port: int) -> list[int]:
    """Return the processes with a socket whose own or peer port this is."""
    inodes = {
        each.inode
        for each in sock_diag.dump()
        if each.inode and each.family in ("inet", "inet6") and port in (each.local.port, each.peer.port)
    }
    return _without_self(
        {owner.pid for inode, owners in find_owners().by_inode.items() if inode in inodes for owner in owners}
    )


def pids_in_cgroup(folder: Path) -> list[int]:
    """Return the processes of a control group and of the groups in it."""
    found: set[int] = set()
    for path in folder.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            found.update(map(int, path.read_text(encoding="ascii").split()))
    return _without_self(found)


def _without_self(pids: set[int]) -> list[int]:
    return sorted(pids - {0, os.getpid()})


def find_cgroup(path: str) -> Path:
    """Return the folder of a control group: a path, or one below /sys/fs/cgroup. Raises SystemCallFailed."""
    for folder in (Path(path), _CGROUPS / path.lstrip("/")):
        if (folder / "cgroup.procs").is_file():
            return folder
    raise SystemCallFailed("trace", f"control group {path}", 2, "find /sys/fs/cgroup -name cgroup.procs")


def find_container(name: str) -> Path:
    """Return the control group of a container, given by its name, its id, or the start of its id.

    Raises:
        UnknownName: there is no such container.
    """
    for each in dict.fromkeys((_container_id(name), name)):
        if len(each) >= 6 and re.fullmatch(r"[0-9a-f]+", each):
            found = sorted(
                path
                for path in _cgroup_folders()
                if re.search(rf"(?:^|[-:/]){each}[0-9a-f]*(?:\.scope)?$", path.name)
            )
            if found:
                return found[0]
    raise UnknownName("container", name, "", "docker ps, or podman ps, lists the containers")


def _container_id(name: str) -> str:
    for engine in _ENGINES:
        if shutil.which(engine):
            command = [engine, "inspect", "--format", "{{.Id}}", "--", name]
            finished = subprocess.run(command, capture_output=True, text=True, check=False)
            if finished.returncode == 0:
                return finished.stdout.strip()
    return name


def _cgroup_folders() -> Iterator[Path]:
    for folder, _, files in os.walk(_CGROUPS):
        if "cgroup.procs" in files:
            yield Path(folder)
