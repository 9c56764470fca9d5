"""Services: what is said. The contract between a service and whatever carries it.

Rank 1, sans-IO: bytes in, bytes out. A service never sees a socket, starts no thread, and reads no
clock that was not passed in; so every engine drives the same code, and a test replays a
conversation byte by byte.

1. A `Service` is made once and opened once for each peer: `open(peer, post)` gives a `Conversation`.
2. The carrier calls `start()` once, then `receive(data)` for every chunk, then `end()` once when the
   peer has finished sending. What they return is to be sent, in that order; `b""` is nothing.
3. After `done` is true the carrier sends what is left, closes, and calls nothing but `closed()`.
4. `more()` is called whenever all that was returned before has been sent: how a conversation that
   has a lot to say says it piece by piece, at the pace at which the peer reads.
5. `closed()` is called once at the very end, however it ended.
6. A chunk is cut anywhere. Only where `peer.boundaries` is true is it a whole message, and then each
   return value goes out as one message.
7. On datagram sockets there is no conversation: `answer(datagram, peer)` gives the datagram to send
   back, or None for none. (`b""` is an empty datagram, which is something: RFC 768.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from bothends.endpoints import Address

# Queues bytes for one peer, from any conversation and thread, at any time from `open` on. After
# `closed` it does nothing: who posts to others can't know who has just left.
Push: TypeAlias = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end.

    `address` is the peer's, `local` ours, `boundaries` whether messages arrive whole (datagrams,
    seqpacket), `connection` the connection's number in its process (0 for datagrams), `longest` the longest
    message that the server takes, in bytes, for a service that cuts a stream into messages; None for
    what the service itself says.
    """

    address: Address
    local: Address
    message_oriented: bool = False
    connection: int = 0
    max_message_size: int | None = None


class Conversation(ABC):
    """One peer's exchange with a service."""

    __slots__ = ()  # so that a subclass may have some: ten thousand of them are held at once

    done: bool = False
    """True: send what is left, then close."""

    failure: BaseException | None = None
    """Set together with `done` by a conversation that ends for an error but has, in the same return
    value, something left to say. (Raising ends it too; what the call would have returned is lost.)"""

    handshaking: bool = False
    """True while whatever wraps the stream is not ready: the handshake limit counts, not the idle one."""

    handshake_info: str = ""
    """Once a handshake is over: what it agreed, in words for a log ("TLS 1.3, SNI example.org")."""

    proxied_peer: Peer | None = None
    """Once a handshake is over: who the peer turned out to be, where that was learned in it."""

    inner_traffic: deque[tuple[bool, bytes]] | None = None
    """Where the carrier sees only what wraps the talk: what was said in it, in order, for the carrier to
    take out and tell. Pairs of whether it was heard (else said) and the bytes; heard, and none: the peer
    has finished sending. None: what the carrier sees is what is said."""

    @property
    def wants_pull(self) -> bool:
        """Whether `more()` is to be called. Known from the start, or from the end of the handshake."""
        return type(self).produce is not Conversation.produce

    @property
    def more_later(self) -> bool:
        """Whether `more()`, though it gives nothing now, may give something later: then nothing now is not
        the end, not even after the peer's. Whoever drives such a conversation knows when to ask again."""
        return False

    def start(self) -> bytes:
        """What to say before the peer has said anything."""
        return b""

    @abstractmethod
    def receive(self, data: bytes) -> bytes:
        """Take a chunk of at least one byte; give what to send."""

    def end(self) -> bytes:
        """The peer has finished sending; give what to send. `receive` is not called again."""
        return b""

    def close(self) -> bytes:
        """In place of `end` where it isn't the peer who ends: a limit has passed, or the server leaves.
        What wraps a stream must know the difference, a service need not."""
        return self.end()

    def produce(self) -> bytes:
        """All that was given has been sent; give more, or b"" for nothing more now."""
        return b""

    def closed(self) -> None:
        """The connection is gone. Let go of what belongs to this conversation."""


class Service(ABC):
    """Something that can be served.

    Class attributes say what it is and where it makes sense; an engine, or the server, refuses at
    the start what it can't carry.
    """

    name: str = ""
    summary: str = ""

    streams: bool = True
    """Makes sense on connections (TCP, UNIX stream and seqpacket)."""

    datagrams: bool = True
    """Makes sense on datagram sockets."""

    pushes: bool = False
    """Speaks unasked, or to other peers: needs an engine that can deliver what is posted."""

    log_messages: bool = False
    """Exists to show what arrives: its messages are logged even when logging is turned down."""

    answers_per_second: float | None = None
    """Most datagram answers to one host, on average; None for no bound. For services that would
    make an amplifier or an endless loop of a forged source address."""

    @abstractmethod
    def open(self, peer: Peer, push: Push) -> Conversation:
        """A conversation with a new peer. `post` is a no-op unless `posts` is true."""

    def answer(self, datagram: bytes, peer: Peer) -> bytes | None:
        """The answer to one datagram; None for none.

        By default what a conversation says that is begun and ended with it, if it says anything.
        """
        conversation = self.open(peer, discard_push)
        try:
            said = conversation.start()
            if datagram and not conversation.done:
                said += conversation.receive(datagram)
            if not conversation.done:
                said += conversation.end()
            return said or None
        finally:
            conversation.closed()


def discard_push(_data: bytes) -> None:
    """The post box where nothing can be posted."""
