"""Services to try an engine with: each small, pure, and peculiar in one way only."""

from __future__ import annotations

import functools
import random
import zlib
from typing import Final, Literal

from bothends.services.base import Conversation, Peer, Post, Service
from bothends.services.functions import message

# What one call of `more` gives.
PIECE: Final = 32 * 1024


@functools.lru_cache(maxsize=4)
def pattern(size: int) -> bytes:
    """So many bytes, the same every time, of which no two blocks are alike."""
    return random.Random(size).randbytes(size)


class Echo(Service):
    """Sends back what came, as it came, on connections and on datagram sockets."""

    name = "test-echo"

    def open(self, peer: Peer, post: Post) -> Conversation:
        return _Echo()

    def answer(self, datagram: bytes, peer: Peer) -> bytes | None:
        return datagram


class _Echo(Conversation):
    def receive(self, data: bytes) -> bytes:
        return data


class Lines(Service):
    """Answers each line with the line in capitals, and what is left at the end as well.

    "!" as a line: answers "bye", and is done. So there is a service that stops first.
    """

    name = "test-lines"

    def open(self, peer: Peer, post: Post) -> Conversation:
        return _Lines()


class _Lines(Conversation):
    def __init__(self) -> None:
        self._rest = b""

    def receive(self, data: bytes) -> bytes:
        *lines, self._rest = (self._rest + data).split(b"\n")
        said = b""
        for line in lines:
            if line == b"!":
                self.done = True
                return said + b"bye\n"
            said += line.upper() + b"\n"
        return said

    def end(self) -> bytes:
        return self._rest.upper()


class Digest(Service):
    """Says nothing until the peer has finished; then how many bytes came, and their CRC-32."""

    name = "test-digest"

    def open(self, peer: Peer, post: Post) -> Conversation:
        return _Digest()


class _Digest(Conversation):
    def __init__(self) -> None:
        self._size = self._crc = 0

    def receive(self, data: bytes) -> bytes:
        self._size += len(data)
        self._crc = zlib.crc32(data, self._crc)
        return b""

    def end(self) -> bytes:
        return digest(self._size, self._crc)


def digest(size: int, crc: int) -> bytes:
    """What Digest says."""
    return b"%d %08x\n" % (size, crc)


class Welcome(Service):
    """Says something at once and is done, without hearing the peer."""

    name = "test-welcome"

    def open(self, peer: Peer, post: Post) -> Conversation:
        return _Welcome()


class _Welcome(Conversation):
    def start(self) -> bytes:
        self.done = True
        return b"welcome and goodbye\n"

    def receive(self, data: bytes) -> bytes:
        raise AssertionError("receive() was called after done")


class Large(Service):
    """Answers the peer's first bytes with `pattern(size)`, given at once, and is done if asked so."""

    name = "test-large"

    def __init__(self, size: int, *, done: bool = False) -> None:
        self._size = size
        self._done = done

    def open(self, peer: Peer, post: Post) -> Conversation:
        return _Large(self._size, self._done)


class _Large(Conversation):
    def __init__(self, size: int, done: bool) -> None:
        self._size = size
        self._ends = done

    def receive(self, data: bytes) -> bytes:
        self.done = self._ends
        size, self._size = self._size, 0
        return pattern(size)


class Pulled(Service):
    """Says `pattern(size)` piece by piece, when it is asked for more; without a size, for ever.

    It is done when all is said.
    """

    name = "test-pulled"

    def __init__(self, size: int | None = None) -> None:
        self._size = size

    def open(self, peer: Peer, post: Post) -> Conversation:
        return _Pulled(self._size)


class _Pulled(Conversation):
    def __init__(self, size: int | None) -> None:
        self._endless = size is None
        self._data = memoryview(pattern(PIECE if size is None else size))
        self._said = 0

    def receive(self, data: bytes) -> bytes:
        return b""

    def end(self) -> bytes:
        self.done = self._endless
        return b""

    def more(self) -> bytes:
        if self._endless:
            return bytes(self._data)
        piece = bytes(self._data[self._said : self._said + PIECE])
        self._said += len(piece)
        self.done = self._said == len(self._data)
        return piece


Where = Literal["open", "start", "receive", "end", "more", "closed"]


class Mistake(Exception):
    """What `Raising` raises. A programmer's mistake, as far as an engine can know."""


# Who calls from here meets the mistake at once, in `open`, `start` and `more`.
UNLUCKY: Final = "127.0.0.13"


class Raising(Service):
    """An echo that raises in one place: for peers from UNLUCKY in `open`, `start` and `more`, for those
    whose first byte is "x" in `receive`, `end` and `closed`."""

    name = "test-raising"

    def __init__(self, where: Where) -> None:
        self._where = where

    def open(self, peer: Peer, post: Post) -> Conversation:
        unlucky = peer.address.host == UNLUCKY
        if self._where == "open" and unlucky:
            raise Mistake("open")
        return _RaisingInMore() if self._where == "more" and unlucky else _Raising(self._where, unlucky)


class _Raising(Conversation):
    def __init__(self, where: Where, unlucky: bool) -> None:
        self._where = where
        self._unlucky = unlucky
        self._marked = False

    def start(self) -> bytes:
        self._raise("start", self._unlucky)
        return b""

    def receive(self, data: bytes) -> bytes:
        self._marked = self._marked or data.startswith(b"x")
        self._raise("receive", self._marked)
        return data

    def end(self) -> bytes:
        self._raise("end", self._marked)
        return b""

    def closed(self) -> None:
        self._raise("closed", self._marked)

    def _raise(self, place: Where, now: bool) -> None:
        if now and place == self._where:
            raise Mistake(place)


class _RaisingInMore(Conversation):
    def receive(self, data: bytes) -> bytes:
        return data

    def more(self) -> bytes:
        raise Mistake("more")


class LastWord(Service):
    """Finds fault with whatever comes, and says so: ends by `failure`, with something left to say."""

    name = "test-last-word"

    def open(self, peer: Peer, post: Post) -> Conversation:
        return _LastWord()


class _LastWord(Conversation):
    def receive(self, data: bytes) -> bytes:
        self.done = True
        self.failure = Mistake("no such command")
        return b"500 no such command\n"


class Who(Service):
    """Says whom it has been told that it talks to, and at which end of ours; then it is done."""

    name = "test-who"
    datagrams = False

    def open(self, peer: Peer, post: Post) -> Conversation:
        return _Who(peer)


class _Who(Conversation):
    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def start(self) -> bytes:
        self.done = True
        return f"{self._peer.address} at {self._peer.local}".encode()

    def receive(self, data: bytes) -> bytes:
        return b""


def messages() -> Service:
    """An echo of whole messages: of lines, where nothing else keeps them apart."""
    return message(_same)


def _same(text: bytes) -> bytes:
    return text


class Moody(Service):
    """Answers datagrams by what they say: "raise", "nothing", "huge" (an answer that no UDP datagram
    can carry), anything else as an echo."""

    name = "test-moody"

    def open(self, peer: Peer, post: Post) -> Conversation:
        return _Echo()

    def answer(self, datagram: bytes, peer: Peer) -> bytes | None:
        if datagram == b"raise":
            raise Mistake("answer")
        if datagram == b"nothing":
            return None
        return pattern(2_000_000) if datagram == b"huge" else datagram


class Chat(Service):
    """What one says all others hear, and the speaker hears "ok" for each time it has been heard."""

    name = "test-chat"
    posts = True
    datagrams = False

    def __init__(self) -> None:
        self._members: dict[_Chat, Post] = {}

    def open(self, peer: Peer, post: Post) -> Conversation:
        member = _Chat(self)
        self._members[member] = post
        return member

    def tell(self, speaker: Conversation, data: bytes) -> None:
        """To everyone else."""
        for member, post in list(self._members.items()):
            if member is not speaker:
                post(data)

    def leave(self, member: _Chat) -> None:
        """It hears no more."""
        self._members.pop(member, None)


class _Chat(Conversation):
    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    def start(self) -> bytes:
        return b"hello\n"

    def receive(self, data: bytes) -> bytes:
        self._chat.tell(self, data)
        return b"ok\n"

    def closed(self) -> None:
        self._chat.leave(self)
        self._chat.tell(self, b"(left)\n")
