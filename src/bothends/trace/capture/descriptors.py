"""Descriptor tables: which socket a descriptor refers to, across dup, fork, exec and close.

The labels that strace prints do not identify a socket: the label of a connected socket has no inode, that of
a shut-down socket may be missing, and that of a UDP socket does not follow connect(). So this module keeps
tables:

    DescriptorTable   the descriptors of one process (all its threads): number -> OpenFile
    SocketRegistry    every known socket, by inode and by its two addresses
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from bothends.trace.capture.arguments import SocketLabel
from bothends.trace.model import Socket, SocketAddress, SocketFamily, SocketKind, trim_oldest

MAX_DESCRIPTORS: Final = 100_000  # of one process: more means that closes were missed
MAX_CLOSED: Final = 1_000  # closed numbers of one process whose last socket is remembered


@dataclass(slots=True)
class EpollInterest:
    """A descriptor in the interest list of an epoll instance.

    `socket` is None for a pipe, a terminal and so on. `data` is the program's value for it (u64), which
    epoll_wait() returns.
    """

    socket: Socket | None
    events: str
    data: int


@dataclass(slots=True)
class OpenFile:
    """What a descriptor refers to: a socket, or an epoll instance and its interest list.

    `label` is strace's last label, if nothing more can be learnt from it. `pipe` is an end of a pipe.
    """

    socket: Socket | None = None
    close_on_exec: bool = False
    interest_list: dict[int, EpollInterest] | None = None  # epoll: by descriptor
    label: str = ""
    pipe: Socket | None = None

    def copy(self, *, close_on_exec: bool) -> OpenFile:
        """Return the entry of a copied descriptor."""
        return OpenFile(self.socket, close_on_exec, self.interest_list, pipe=self.pipe)


# Called with a socket, a descriptor, and whether the descriptor refers to the socket from now on.
OnChange: TypeAlias = Callable[[Socket, int, bool], None]


class DescriptorTable:
    """The descriptors of one process that refer to sockets or epoll instances.

    `on_change` is called whenever a descriptor is set to a socket, or no longer refers to it. `opened` counts
    the sockets that the process has opened since exec, without those of the C library that ask for a name.
    """

    def __init__(self, on_change: OnChange = lambda *_: None) -> None:
        self.opened = 0
        self._open_files: dict[int, OpenFile] = {}
        self._closed: dict[int, Socket] = {}
        self._on_change = on_change

    def __getitem__(self, number: int) -> OpenFile | None:
        return self._open_files.get(number)

    def put(self, number: int, open_file: OpenFile) -> None:
        """Set what a descriptor refers to from now on."""
        self.drop(number)
        self._closed.pop(number, None)
        if len(self._open_files) < MAX_DESCRIPTORS:
            self._open_files[number] = open_file
            if open_file.socket is not None:
                self._on_change(open_file.socket, number, True)

    def drop(self, number: int) -> OpenFile | None:
        """Remove a closed descriptor. Returns what it referred to."""
        open_file = self._open_files.pop(number, None)
        if open_file is not None and open_file.socket is not None:
            self._on_change(open_file.socket, number, False)
        return open_file

    def close(self, number: int) -> None:
        """Remove a descriptor that close() closed, and remember its socket: see `closed_socket`."""
        open_file = self.drop(number)
        if open_file is not None and open_file.socket is not None:
            self._closed[number] = open_file.socket
            trim_oldest(self._closed, MAX_CLOSED)

    def closed_socket(self, number: int) -> Socket | None:
        """Return the socket that a number referred to until close(), if nothing has the number now."""
        return self._closed.get(number) if number not in self._open_files else None

    def drop_range(self, first: int, last: int) -> None:
        """Remove the descriptors from `first` up to `last`, as close_range(2) does."""
        for number in [each for each in self._open_files if first <= each <= last]:
            self.drop(number)

    def drop_all(self) -> None:
        """Remove all descriptors: the process has exited."""
        for number in list(self._open_files):
            self.drop(number)

    def close_on_exec_range(self, first: int, last: int) -> None:
        """Set the close-on-exec flag from `first` up to `last`: close_range(CLOSE_RANGE_CLOEXEC)."""
        for number, open_file in self._open_files.items():
            if first <= number <= last:
                open_file.close_on_exec = True

    def duplicate(self, old: int, new: int, *, close_on_exec: bool) -> None:
        """Copy a descriptor, as dup() and its variants do. The copy has its own close-on-exec flag."""
        open_file = self._open_files.get(old)
        if open_file is None:
            self.drop(new)
        else:
            self.put(new, open_file.copy(close_on_exec=close_on_exec))

    def copy_for_child(self, on_change: OnChange = lambda *_: None) -> DescriptorTable:
        """Return the table of a child process after fork()."""
        child = DescriptorTable(on_change)
        for number, each in self._open_files.items():
            child.put(number, each.copy(close_on_exec=each.close_on_exec))
        return child

    def close_on_exec(self) -> None:
        """Close the descriptors with the close-on-exec flag: execve() has succeeded."""
        self.opened = 0
        for number in [number for number, each in self._open_files.items() if each.close_on_exec]:
            self.drop(number)

    def refers_to(self, number: int, socket: Socket) -> bool:
        """Return whether a descriptor refers to a socket."""
        open_file = self._open_files.get(number)
        return open_file is not None and open_file.socket is socket

    def pipes(self) -> Iterator[Socket]:
        """Iterate over the ends of pipes that are open."""
        return (each.pipe for each in self._open_files.values() if each.pipe is not None)

    def sockets(self) -> dict[int, Socket]:
        """Return the sockets by descriptor."""
        return {number: each.socket for number, each in self._open_files.items() if each.socket is not None}


class SocketRegistry:
    """All sockets of a trace, numbered from 1."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._by_inode: dict[int, Socket] = {}
        self._by_addresses: dict[tuple[SocketAddress | None, SocketAddress | None], Socket] = {}

    def new(self, family: SocketFamily, kind: SocketKind, inode: int = 0) -> Socket:
        """Create a socket with the next number."""
        socket = Socket(next(self._numbers), family, kind, inode)
        if inode:
            self._by_inode[inode] = socket
        return socket

    def retain(self, numbers: Container[int]) -> None:
        """Drop all other sockets."""
        self._by_inode = {key: each for key, each in self._by_inode.items() if each.number in numbers}
        self._by_addresses = {key: each for key, each in self._by_addresses.items() if each.number in numbers}

    def find_or_create(self, label: SocketLabel) -> Socket:
        """Return the socket that a label describes, a known one or a new one."""
        socket = self._by_inode.get(label.inode) if label.inode else None
        if socket is None and label.local is not None and label.kind == "stream":
            socket = self._by_addresses.get((label.local, label.peer))
        if socket is None:
            socket = self.new(label.family, label.kind, label.inode)
        self.update_from_label(socket, label)
        return socket

    def update_from_label(self, socket: Socket, label: SocketLabel) -> None:
        """Add what a label shows and the socket lacks. Both addresses of a connected stream are exact."""
        if socket.family == "other" and label.family != "other":
            socket.family, socket.kind = label.family, label.kind
        if label.inode and not socket.inode:
            socket.inode = label.inode
            self._by_inode[label.inode] = socket
        if label.peer_inode:
            socket.peer_inode = label.peer_inode
        if label.kind == "stream" and label.local is not None and label.peer is not None:
            socket.set_connection(label.local, label.peer)
        else:
            socket.complete(label.local, label.peer)
        if socket.kind == "stream" and label.local is not None and socket.family in ("inet", "inet6"):
            self._by_addresses.setdefault((label.local, label.peer), socket)


def open_interests(
    interest_list: dict[int, EpollInterest], table: DescriptorTable
) -> dict[int, EpollInterest]:
    """Return the interest list without closed descriptors: the kernel removes them on close()."""
    return {
        number: each
        for number, each in interest_list.items()
        if each.socket is None or table.refers_to(number, each.socket)
    }


def interest_of(interest_list: dict[int, EpollInterest], data: int) -> int | None:
    """Return the descriptor that has this data, which most programs set to its number."""
    if data in interest_list and interest_list[data].data == data:
        return data
    return next((number for number, each in interest_list.items() if each.data == data), None)
