"""Services for testing engines: each is small, pure, and exercises one feature of the service contract."""

from __future__ import annotations

import functools
import random
import zlib
from typing import Final, Literal

from bothends.services.base import Conversation, Peer, Push, Service
from bothends.services.functions import message

# Bytes that one call of `produce` returns.
PULL_SIZE: Final = 32 * 1024


@functools.lru_cache(maxsize=4)
def pattern(size: int) -> bytes:
    """Return `size` pseudorandom bytes, the same in every run."""
    return random.Random(size).randbytes(size)


class EchoService(Service):
    """Sends back each chunk and each datagram."""

    name = "test-echo"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _Echo()

    def answer(self, datagram: bytes, peer: Peer) -> bytes | None:
        return datagram


class _Echo(Conversation):
    def receive(self, data: bytes) -> bytes:
        return data


class UppercaseLines(Service):
    """Sends back each line in upper case, and an unterminated last line at EOF.

    To the line "!" it replies "bye" and is done, so that tests have a service that closes first.
    """

    name = "test-lines"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _UppercaseLines()


class _UppercaseLines(Conversation):
    def __init__(self) -> None:
        self._buffer = b""

    def receive(self, data: bytes) -> bytes:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        reply = b""
        for line in lines:
            if line == b"!":
                self.done = True
                return reply + b"bye\n"
            reply += line.upper() + b"\n"
        return reply

    def end(self) -> bytes:
        return self._buffer.upper()


class Digest(Service):
    """Sends the number of bytes received and their CRC-32 at EOF, and nothing before."""

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
    """Return the reply of Digest."""
    return b"%d %08x\n" % (size, crc)


class Greeting(Service):
    """Sends a greeting and is done, without receiving anything."""

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
    """Sends `pattern(size)` as one reply to the first chunk, and is done then if `done` is true."""

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
    """Sends `pattern(size)` in pieces, as a pull producer, and is done then. Without a size it never ends."""

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


RaisePoint = Literal["open", "start", "receive", "end", "produce", "closed"]


class InjectedError(Exception):
    """Raised by `RaisingEcho`. To an engine it is like any bug in a service."""


# The source address for which RaisingEcho raises in `open`, `start` and `produce`.
ALTERNATE_SOURCE: Final = "127.0.0.13"


class RaisingEcho(Service):
    """An echo that raises in one method.

    In `open`, `start` and `produce` it raises for peers at ALTERNATE_SOURCE, or `everywhere`, in `receive`,
    `end` and `closed` for peers that have sent a chunk that begins with "x".
    """

    name = "test-raising"

    def __init__(self, point: RaisePoint, *, everywhere: bool = False) -> None:
        self._point = point
        self._everywhere = everywhere

    def open(self, peer: Peer, push: Push) -> Conversation:
        raises = self._everywhere or peer.address.host == ALTERNATE_SOURCE
        if self._point == "open" and raises:
            raise InjectedError("open")
        return (
            _RaisingProducer() if self._point == "produce" and raises else _RaisingEcho(self._point, raises)
        )


class _RaisingEcho(Conversation):
    def __init__(self, point: RaisePoint, from_alternate_source: bool) -> None:
        self._point = point
        self._from_alternate_source = from_alternate_source
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
        raise InjectedError("produce")


class ErrorReply(Service):
    """Fails on any input: sets `failure`, and returns an error reply."""

    name = "test-last-word"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _ErrorReply()


class _ErrorReply(Conversation):
    def receive(self, data: bytes) -> bytes:
        self.done = True
        self.failure = InjectedError("no such command")
        return b"500 no such command\n"


class WhoAmI(Service):
    """Sends the peer's address and the local address, and is done."""

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
    """Create an echo of whole messages: of lines on a stream."""
    return message(_identity)


def _identity(text: bytes) -> bytes:
    return text


class DatagramFaults(Service):
    """Answers datagrams as they say: "raise" raises, "nothing" gives no answer, "huge" one that is too large
    for UDP. Other datagrams are echoed."""

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
    """Pushes each chunk to all other members, and replies "ok" to its sender."""

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
        """Push `data` to all members except the sender."""
        for member, push in list(self._members.items()):
            if member is not sender:
                push(data)

    def remove(self, member: _ChatMember) -> None:
        """Stop pushing to a member."""
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
