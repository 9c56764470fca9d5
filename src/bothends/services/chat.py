"""`chat`: every line goes to all other members, with the sender's name. Joins and leaves are announced.

    * 127.0.0.1#5000 joined
    127.0.0.1#5000: hello, all

A line is escaped before it is sent on, so no member can control another member's terminal.

With an engine that uses threads, members join, leave and send in threads of their own. No lock is needed: the
only shared object is a dict, to which members are added, from which they are removed, and from which lists
are made. Each of these is a single C operation that runs no Python code (members hash by identity), so
CPython executes it atomically. A member may leave after a list was made; pushing to it does nothing, which
engines must support anyway.
"""

from __future__ import annotations

from typing import Final

from bothends.errors import MessageTooLong
from bothends.escaping import escape
from bothends.framing import Lines
from bothends.services.base import Conversation, Peer, Push, Service

MAX_LINE: Final = 4096
"""Maximum line length in bytes. It is far below the usual limit, because every line goes to every member."""


class Chat(Service):
    """Sends every line to all other members."""

    name = "chat"
    summary = "sends each line to all other clients, with the sender's name"
    datagrams = False
    pushes = True

    def __init__(self) -> None:
        self._members: dict[_MemberConversation, None] = {}  # an ordered set

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _MemberConversation(self._members, peer, push)


class _MemberConversation(Conversation):
    def __init__(self, members: dict[_MemberConversation, None], peer: Peer, push: Push) -> None:
        self._members = members
        self._push = push
        # Most UNIX clients have no name, so the connection's number distinguishes them.
        self._name = str(peer.address) if peer.address.host else f"{peer.address}#{peer.connection}"
        self._message_oriented = peer.message_oriented
        self._decoder = Lines(MAX_LINE if peer.max_message_size is None else peer.max_message_size).decoder()

    def start(self) -> bytes:
        self._broadcast(f"* {self._name} joined\n")
        self._members[self] = None
        return b""

    def receive(self, data: bytes) -> bytes:
        if self._message_oriented:
            data = data.removesuffix(b"\n") + b"\n"
        try:
            lines = self._decoder.feed(data)
        except MessageTooLong as error:
            self.done = True
            self.failure = error
            lines = list(error.completed_messages)
        self._broadcast_lines(lines)
        return b""

    def end(self) -> bytes:
        try:
            self._broadcast_lines(self._decoder.end())
        except MessageTooLong as error:
            self.done = True
            self.failure = error
        return b""

    def closed(self) -> None:
        if self in self._members:
            del self._members[self]
            self._broadcast(f"* {self._name} left\n")

    def _broadcast_lines(self, lines: list[bytes]) -> None:
        self._broadcast("".join(f"{self._name}: {escape(line)}\n" for line in lines))

    def _broadcast(self, text: str) -> None:
        """Push text to all other members."""
        if text:
            data = text.encode()
            for member in list(self._members):
                if member is not self:
                    member._push(data)
