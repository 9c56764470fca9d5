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

from bothends.trace.capture.arguments import Label
from bothends.trace.model import Family, Kind, Place, Socket

MOST: Final = 100_000  # descriptors remembered for one process: more is a mistake of ours


@dataclass(slots=True)
class Held:
    """What one descriptor refers to: a socket, or the sockets that an epoll instance waits for."""

    socket: Socket | None = None
    close_on_exec: bool = False
    watched: dict[int, Socket] | None = None  # epoll: by descriptor


class Descriptors:
    """The descriptors of one process that matter here."""

    def __init__(self) -> None:
        self._held: dict[int, Held] = {}

    def __getitem__(self, number: int) -> Held | None:
        return self._held.get(number)

    def put(self, number: int, held: Held) -> None:
        """A descriptor refers to this from now on, whatever it was before."""
        if len(self._held) < MOST:
            self._held[number] = held

    def drop(self, number: int) -> Held | None:
        """A descriptor is closed. What it was."""
        return self._held.pop(number, None)

    def drop_range(self, first: int, last: int) -> None:
        """close_range(2)."""
        for number in [each for each in self._held if first <= each <= last]:
            del self._held[number]

    def copy_to(self, old: int, new: int, *, close_on_exec: bool) -> None:
        """dup() and its kind: the copy has a close-on-exec flag of its own."""
        held = self._held.get(old)
        if held is None:
            self._held.pop(new, None)
        else:
            self.put(new, Held(held.socket, close_on_exec, held.watched))

    def forked(self) -> Descriptors:
        """What a child begins with."""
        child = Descriptors()
        child._held = {
            number: Held(held.socket, held.close_on_exec, held.watched) for number, held in self._held.items()
        }
        return child

    def executed(self) -> None:
        """Another program has taken over: what was marked is closed."""
        self._held = {number: held for number, held in self._held.items() if not held.close_on_exec}

    def numbers_of(self, socket: Socket) -> list[int]:
        """The descriptors that refer to a socket."""
        return [number for number, held in self._held.items() if held.socket is socket]

    def sockets(self) -> dict[int, Socket]:
        """Every descriptor of a socket, and the socket."""
        return {number: held.socket for number, held in self._held.items() if held.socket is not None}


class Sockets:
    """All sockets of a trace, numbered from 1."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.all: dict[int, Socket] = {}
        self._by_inode: dict[int, Socket] = {}
        self._by_ends: dict[tuple[Place | None, Place | None], Socket] = {}

    def new(self, family: Family, kind: Kind, inode: int = 0) -> Socket:
        """A socket that nobody has met before."""
        socket = Socket(next(self._numbers), family, kind, inode)
        self.all[socket.number] = socket
        if inode:
            self._by_inode[inode] = socket
        return socket

    def keep(self, numbers: Container[int]) -> None:
        """Let go of all others."""
        self.all = {number: each for number, each in self.all.items() if number in numbers}
        self._by_inode = {key: each for key, each in self._by_inode.items() if each.number in numbers}
        self._by_ends = {key: each for key, each in self._by_ends.items() if each.number in numbers}

    def by_inode(self, inode: int) -> Socket | None:
        """A socket by its number in the kernel, which UNIX sockets show for their peers too."""
        return self._by_inode.get(inode)

    def described(self, label: Label) -> Socket:
        """The socket that a label describes: one that was met, or a new one."""
        socket = self._by_inode.get(label.inode) if label.inode else None
        if socket is None and label.local is not None and label.kind == "stream":
            socket = self._by_ends.get((label.local, label.peer))
        if socket is None:
            socket = self.new(label.family, label.kind, label.inode)
        self.learn(socket, label)
        return socket

    def learn(self, socket: Socket, label: Label) -> None:
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
        elif known is None or (socket.family != "unix" and (known.is_any or not known.port)):
            socket.local = label.local or known
        if label.peer is not None and socket.peer is None:
            socket.peer = label.peer
        if socket.kind == "stream" and label.local is not None and socket.family in ("inet", "inet6"):
            self._by_ends.setdefault((label.local, label.peer), socket)
