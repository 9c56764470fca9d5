"""Services to try an engine with: each small, pure, and peculiar in one way only."""

from __future__ import annotations

import functools
import random
import zlib
from typing import Final, Literal

from bothends.services.base import Conversation, Peer, Push, Service
from bothends.services.functions import message

# What one call of `more` gives.
PULL_SIZE: Final = 32 * 1024


@functools.lru_cache(maxsize=4)
def pattern(size: int) -> bytes:
    """So many bytes, the same every time, of which no two blocks are alike."""
    return random.Random(size).randbytes(size)


class EchoService(Service):
    """Sends back what came, as it came, on connections and on datagram sockets."""

    name = "test-echo"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _Echo()

    def answer(self, datagram: bytes, peer: Peer) -> bytes | None:
        return datagram


class _Echo(Conversation):
    def receive(self, data: bytes) -> bytes:
        return data


class UppercaseLines(Service):
    """Answers each line with the line in capitals, and what is left at the end as well.

    "!" as a line: answers "bye", and is done. So there is a service that stops first.
    """

    name = "test-lines"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _UppercaseLines()


class _UppercaseLines(Conversation):
    def __init__(self) -> None:
        self._buffer = b""

    def receive(self, data: bytes) -> bytes:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        said = b""
        for line in lines:
            if line == b"!":
                self.done = True
                return said + b"bye\n"
            said += line.upper() + b"\n"
        return said

    def end(self) -> bytes:
        return self._buffer.upper()


class Digest(Service):
    """Says nothing until the peer has finished; then how many bytes came, and their CRC-32."""

    name = "test-digest"

    def open(self, peer: Peer, push: Push) -> Conversation:
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


class Greeting(Service):
    """Says something at once and is done, without hearing the peer."""

    name = "test-welcome"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _Greeting()


class _Greeting(Conversation):
    def start(self) -> bytes:
        self.done = True
        return b"welcome and goodbye\n"

    def receive(self, data: bytes) -> bytes:
        raise AssertionError("receive() was called after done")


class LargeReply(Service):
    """Answers the peer's first bytes with `pattern(size)`, given at once, and is done if asked so."""

    name = "test-large"

    def __init__(self, size: int, *, done: bool = False) -> None:
        self._size = size
        self._done = done

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _LargeReply(self._size, self._done)


class _LargeReply(Conversation):
    def __init__(self, size: int, done: bool) -> None:
        self._size = size
        self._done_after_reply = done

    def receive(self, data: bytes) -> bytes:
        self.done = self._done_after_reply
        size, self._size = self._size, 0
        return pattern(size)


class PullProducer(Service):
    """Says `pattern(size)` piece by piece, when it is asked for more; without a size, for ever.

    It is done when all is said.
    """

    name = "test-pulled"

    def __init__(self, size: int | None = None) -> None:
        self._size = size

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _PullProducer(self._size)


class _PullProducer(Conversation):
    def __init__(self, size: int | None) -> None:
        self._endless = size is None
        self._data = memoryview(pattern(PULL_SIZE if size is None else size))
        self._offset = 0

    def receive(self, data: bytes) -> bytes:
        return b""

    def end(self) -> bytes:
        self.done = self._endless
        return b""

    def produce(self) -> bytes:
        if self._endless:
            return bytes(self._data)
        piece = bytes(self._data[self._offset : self._offset + PULL_SIZE])
        self._offset += len(piece)
        self.done = self._offset == len(self._data)
        return piece


RaisePoint = Literal["open", "start", "receive", "end", "more", "closed"]


class InjectedError(Exception):
    """What `RaisingEcho` raises. A programmer's mistake, as far as an engine can know."""


# Who calls from here meets the mistake at once, in `open`, `start` and `more`.
ALTERNATE_SOURCE: Final = "127.0.0.13"


class RaisingEcho(Service):
    """An echo that raises in one place: for peers from UNLUCKY in `open`, `start` and `more`, for those
    whose first byte is "x" in `receive`, `end` and `closed`."""

    name = "test-raising"

    def __init__(self, point: RaisePoint) -> None:
        self._point = point

    def open(self, peer: Peer, push: Push) -> Conversation:
        unlucky = peer.address.host == ALTERNATE_SOURCE
        if self._point == "open" and unlucky:
            raise InjectedError("open")
        return _RaisingProducer() if self._point == "more" and unlucky else _RaisingEcho(self._point, unlucky)


class _RaisingEcho(Conversation):
    def __init__(self, where: RaisePoint, unlucky: bool) -> None:
        self._point = where
        self._from_alternate_source = unlucky
        self._marked = False

    def start(self) -> bytes:
        self._raise_if("start", self._from_alternate_source)
        return b""

    def receive(self, data: bytes) -> bytes:
        self._marked = self._marked or data.startswith(b"x")
        self._raise_if("receive", self._marked)
        return data

    def end(self) -> bytes:
        self._raise_if("end", self._marked)
        return b""

    def closed(self) -> None:
        self._raise_if("closed", self._marked)

    def _raise_if(self, point: RaisePoint, condition: bool) -> None:
        if condition and point == self._point:
            raise InjectedError(point)


class _RaisingProducer(Conversation):
    def receive(self, data: bytes) -> bytes:
        return data

    def produce(self) -> bytes:
        raise InjectedError("more")


class ErrorReply(Service):
    """Finds fault with whatever comes, and says so: ends by `failure`, with something left to say."""

    name = "test-last-word"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _ErrorReply()


class _ErrorReply(Conversation):
    def receive(self, data: bytes) -> bytes:
        self.done = True
        self.failure = InjectedError("no such command")
        return b"500 no such command\n"


class WhoAmI(Service):
    """Says whom it has been told that it talks to, and at which end of ours; then it is done."""

    name = "test-who"
    datagrams = False

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _WhoAmI(peer)


class _WhoAmI(Conversation):
    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def start(self) -> bytes:
        self.done = True
        return f"{self._peer.address} at {self._peer.local}".encode()

    def receive(self, data: bytes) -> bytes:
        return b""


def message_echo() -> Service:
    """An echo of whole messages: of lines, where nothing else keeps them apart."""
    return message(_identity)


def _identity(text: bytes) -> bytes:
    return text


class DatagramFaults(Service):
    """Answers datagrams by what they say: "raise", "nothing", "huge" (an answer that no UDP datagram
    can carry), anything else as an echo."""

    name = "test-moody"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _Echo()

    def answer(self, datagram: bytes, peer: Peer) -> bytes | None:
        if datagram == b"raise":
            raise InjectedError("answer")
        if datagram == b"nothing":
            return None
        return pattern(2_000_000) if datagram == b"huge" else datagram


class BroadcastChat(Service):
    """What one says all others hear, and the speaker hears "ok" for each time it has been heard."""

    name = "test-chat"
    pushes = True
    datagrams = False

    def __init__(self) -> None:
        self._members: dict[_ChatMember, Push] = {}

    def open(self, peer: Peer, push: Push) -> Conversation:
        member = _ChatMember(self)
        self._members[member] = push
        return member

    def broadcast(self, sender: Conversation, data: bytes) -> None:
        """To everyone else."""
        for member, post in list(self._members.items()):
            if member is not sender:
                post(data)

    def remove(self, member: _ChatMember) -> None:
        """It hears no more."""
        self._members.pop(member, None)


class _ChatMember(Conversation):
    def __init__(self, chat: BroadcastChat) -> None:
        self._chat = chat

    def start(self) -> bytes:
        return b"hello\n"

    def receive(self, data: bytes) -> bytes:
        self._chat.broadcast(self, data)
        return b"ok\n"

    def closed(self) -> None:
        self._chat.remove(self)
        self._chat.broadcast(self, b"(left)\n")
