"""`chat`: every line goes to all others, with the name of who said it. Joins and leaves are announced.

    * 127.0.0.1#5000 joined
    127.0.0.1#5000: hello, all

A line is escaped before it is passed on: no member sends another's terminal anything but text.

Members come, go and speak each in a thread of its own where the engine has threads, and no lock is
needed: the one thing they share is a dict, to which a member is added, from which it is taken, and
of which a list is made. Each of these is a single operation in C that runs no Python code (members
hash by identity), so CPython does it whole; and a list, once made, is nobody else's. A member who
left after the list was made is posted to in vain, which an engine must bear: it can't tell either.
"""

from __future__ import annotations

from typing import Final

from bothends.errors import MessageTooLong
from bothends.escaping import escape
from bothends.framing import Lines
from bothends.services.base import Conversation, Peer, Push, Service

MAX_LINE: Final = 4096
"""Longest line in bytes. Every member is sent every line, so it is far below the usual limit."""


class Chat(Service):
    """Every line to all others."""

    name = "chat"
    summary = "passes each line on to all others, with its sender's name"
    datagrams = False
    pushes = True

    def __init__(self) -> None:
        self._members: dict[_MemberConversation, None] = {}  # a set that keeps the order

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _MemberConversation(self._members, peer, push)


class _MemberConversation(Conversation):
    def __init__(self, members: dict[_MemberConversation, None], peer: Peer, push: Push) -> None:
        self._members = members
        self._push = push
        # A UNIX client has no name as a rule, and must still be told from the next.
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
        """Post to all others."""
        if text:
            data = text.encode()
            for member in list(self._members):
                if member is not self:
                    member._push(data)
