"""Which socket a descriptor refers to, through dup, fork, exec and close.

A table of our own, since strace's labels are no identity: a connected socket's label has no inode, one that
was shut down may have none at all, and a UDP socket's label doesn't follow connect().

    Descriptors   one process's (or several threads'): number -> Held
    Sockets       every socket that was met, found again by inode or by both its ends
"""

from __future__ import annotations

import itertools
from collections.abc import Container
from dataclasses import dataclass
from typing import Final

from bothends.trace.capture.arguments import SocketLabel
from bothends.trace.model import CounterFamily, Socket, SocketAddress, SocketKind

MAX_DESCRIPTORS: Final = 100_000  # descriptors remembered for one process: more is a mistake of ours


@dataclass(slots=True)
class OpenFile:
    """What one descriptor refers to: a socket, or the sockets that an epoll instance waits for."""

    socket: Socket | None = None
    close_on_exec: bool = False
    interest_list: dict[int, Socket] | None = None  # epoll: by descriptor


class DescriptorTable:
    """The descriptors of one process that matter here."""

    def __init__(self) -> None:
        self._open_files: dict[int, OpenFile] = {}

    def __getitem__(self, number: int) -> OpenFile | None:
        return self._open_files.get(number)

    def put(self, number: int, open_file: OpenFile) -> None:
        """A descriptor refers to this from now on, whatever it was before."""
        if len(self._open_files) < MAX_DESCRIPTORS:
            self._open_files[number] = open_file

    def drop(self, number: int) -> OpenFile | None:
        """A descriptor is closed. What it was."""
        return self._open_files.pop(number, None)

    def drop_range(self, first: int, last: int) -> None:
        """close_range(2)."""
        for number in [each for each in self._open_files if first <= each <= last]:
            del self._open_files[number]

    def duplicate(self, old: int, new: int, *, close_on_exec: bool) -> None:
        """dup() and its kind: the copy has a close-on-exec flag of its own."""
        held = self._open_files.get(old)
        if held is None:
            self._open_files.pop(new, None)
        else:
            self.put(new, OpenFile(held.socket, close_on_exec, held.interest_list))

    def copy_for_child(self) -> DescriptorTable:
        """What a child begins with."""
        child = DescriptorTable()
        child._open_files = {
            number: OpenFile(held.socket, held.close_on_exec, held.interest_list)
            for number, held in self._open_files.items()
        }
        return child

    def close_on_exec(self) -> None:
        """Another program has taken over: what was marked is closed."""
        self._open_files = {
            number: held for number, held in self._open_files.items() if not held.close_on_exec
        }

    def numbers_of(self, socket: Socket) -> list[int]:
        """The descriptors that refer to a socket."""
        return [number for number, held in self._open_files.items() if held.socket is socket]

    def sockets(self) -> dict[int, Socket]:
        """Every descriptor of a socket, and the socket."""
        return {number: held.socket for number, held in self._open_files.items() if held.socket is not None}


class SocketRegistry:
    """All sockets of a trace, numbered from 1."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.all: dict[int, Socket] = {}
        self._by_inode: dict[int, Socket] = {}
        self._by_addresses: dict[tuple[SocketAddress | None, SocketAddress | None], Socket] = {}

    def new(self, family: CounterFamily, kind: SocketKind, inode: int = 0) -> Socket:
        """A socket that nobody has met before."""
        socket = Socket(next(self._numbers), family, kind, inode)
        self.all[socket.number] = socket
        if inode:
            self._by_inode[inode] = socket
        return socket

    def retain(self, numbers: Container[int]) -> None:
        """Let go of all others."""
        self.all = {number: each for number, each in self.all.items() if number in numbers}
        self._by_inode = {key: each for key, each in self._by_inode.items() if each.number in numbers}
        self._by_addresses = {key: each for key, each in self._by_addresses.items() if each.number in numbers}

    def by_inode(self, inode: int) -> Socket | None:
        """A socket by its number in the kernel, which UNIX sockets show for their peers too."""
        return self._by_inode.get(inode)

    def find_or_create(self, label: SocketLabel) -> Socket:
        """The socket that a label describes: one that was met, or a new one."""
        socket = self._by_inode.get(label.inode) if label.inode else None
        if socket is None and label.local is not None and label.kind == "stream":
            socket = self._by_addresses.get((label.local, label.peer))
        if socket is None:
            socket = self.new(label.family, label.kind, label.inode)
        self.update_from_label(socket, label)
        return socket

    def update_from_label(self, socket: Socket, label: SocketLabel) -> None:
        """Take from a label what it tells of a socket that isn't known yet."""
        if socket.family == "other" and label.family != "other":
            socket.family, socket.kind = label.family, label.kind
        if label.inode and not socket.inode:
            socket.inode = label.inode
            self._by_inode[label.inode] = socket
        if label.peer_inode:
            socket.peer_inode = label.peer_inode
        known = socket.local
        if label.kind == "stream" and label.local is not None and label.peer is not None:
            socket.local, socket.peer = label.local, label.peer  # the kernel's word, whatever was guessed
        elif known is None or (socket.family != "unix" and (known.is_wildcard or not known.port)):
            socket.local = label.local or known
        if label.peer is not None and socket.peer is None:
            socket.peer = label.peer
        if socket.kind == "stream" and label.local is not None and socket.family in ("inet", "inet6"):
            self._by_addresses.setdefault((label.local, label.peer), socket)
