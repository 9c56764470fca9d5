"""The contract between a service and the engine or client that drives it.

Rank 1, sans-IO: bytes in, bytes out. A service uses no socket, no thread, and no clock that is not passed in.
So every engine drives the same code, and a test replays a conversation byte by byte.

1. A `Service` is created once, and opened once for each peer: `open(peer, push)` returns a `Conversation`.
2. The driver calls `start()` once, then `receive(data)` for every chunk, then `end()` once when the peer has
   finished sending. It sends the returned bytes in order; `b""` means nothing to send.
3. Once `done` is true, the driver sends the remaining bytes, closes, and calls nothing but `closed()`.
4. The driver calls `produce()` whenever all bytes returned before have been sent. So a conversation with much
   data to send produces it piece by piece, as fast as the peer reads.
5. The driver calls `closed()` once at the very end, however the connection ended.
6. A stream is cut into chunks anywhere. Only if `peer.message_oriented` is true is a chunk a whole message,
   and then each return value is sent as one message.
7. Datagram sockets have no conversations: `answer(datagram, peer)` returns the datagram to send back, or None
   for no answer. (`b""` is an empty datagram, which is sent: RFC 768.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from bothends.endpoints import Address

__all__ = ["Conversation", "OneShot", "Peer", "Push", "Service", "discard_push"]

# Queues bytes for one peer, from any conversation and thread, at any time after `open`. After `closed` it
# does nothing, because the caller cannot know which peers have just left.
Push: TypeAlias = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection, or the sender of a datagram.

    Attributes:
        address: the peer's address.
        local: the server's address.
        message_oriented: whether each message arrives whole (datagrams, seqpacket).
        connection: the connection's number in its process; 0 for datagrams.
        max_message_size: the server's limit in bytes, for a service that splits a stream into messages; None
            for the service's own default.
    """

    address: Address
    local: Address
    message_oriented: bool = False
    connection: int = 0
    max_message_size: int | None = None


class Conversation(ABC):
    """One peer's exchange with a service."""

    __slots__ = ()  # so that subclasses may use slots: there may be ten thousand objects at once

    done: bool = False
    """True: the driver sends all returned bytes, then closes."""

    failure: BaseException | None = None
    """The error that ends the conversation, set together with `done` if the same call also returns bytes to
    send. (An exception ends it too, but then nothing of that call is sent.)"""

    handshaking: bool = False
    """True during a TLS handshake or a PROXY header: the handshake timeout applies, not the idle timeout."""

    handshake_info: str = ""
    """After the handshake: its parameters, as text for a log ("TLS 1.3, SNI example.org")."""

    proxied_peer: Peer | None = None
    """After a PROXY header: the original client; None without one."""

    inner_traffic: deque[tuple[bool, bytes]] | None = None
    """Decrypted traffic, in order, for the driver to remove and emit as events; None without encryption.

    Pairs of a flag (True for received, False for sent) and the bytes. Received and empty means EOF."""

    @property
    def wants_pull(self) -> bool:
        """Whether the driver must call `produce`. Fixed from the start, or from the end of the handshake."""
        return type(self).produce is not Conversation.produce

    @property
    def line_function(self) -> Callable[[bytes], bytes | None] | None:
        """What answers a line, if `receive` does nothing but call it with each; None otherwise.

        An engine may then call it itself for chunks of whole lines: without LF, none with a CR or of more
        than `line_limit` bytes. Each answer is sent with LF; None is no answer. Such a conversation has two
        more methods: `check_answer(answer)` takes any other answer, and returns bytes or None or raises;
        `fail(error)` is called with what the function has raised.
        """
        return None

    @property
    def more_later(self) -> bool:
        """Whether `produce` may return bytes later although it returns none now.

        Then an empty result does not end the conversation, not even after the peer's EOF. The driver of such
        a conversation knows when to call again.
        """
        return False

    def start(self) -> bytes:
        """Return bytes to send before the peer has sent any."""
        return b""

    @abstractmethod
    def receive(self, data: bytes) -> bytes:
        """Take a chunk of at least one byte. Returns the bytes to send."""

    def end(self) -> bytes:
        """Take the peer's EOF. Returns the bytes to send. `receive` is not called again."""
        return b""

    def close(self) -> bytes:
        """Called instead of `end` if the server closes the connection: a timeout, or a shutdown.

        A TLS layer must distinguish the two, because EOF without close_notify is truncation. Other
        conversations can use this default. A pull producer that is not `done` afterwards goes on until it is,
        or until the drain timeout cuts it off with RST. One that never ends sets `done` here.
        """
        return self.end()

    def produce(self) -> bytes:
        """Return more bytes, or b"" for none. Called when all bytes returned before have been sent."""
        return b""

    def closed(self) -> None:
        """Release all resources of the conversation. The connection is closed."""


class OneShot(Conversation):
    """Send fixed data, then close. Input is discarded, as RFC 865, 867 and 868 require."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def start(self) -> bytes:
        self.done = True
        return self._data

    def receive(self, data: bytes) -> bytes:
        return b""


class Service(ABC):
    """A service: opens a conversation for each connection, and answers datagrams.

    Class attributes describe the service and its restrictions. Engines and servers reject unsupported
    combinations at startup.
    """

    name: str = ""
    summary: str = ""

    streams: bool = True
    """Whether it works on connections (TCP, UNIX stream and seqpacket)."""

    datagrams: bool = True
    """Whether it works on datagram sockets."""

    pushes: bool = False
    """Whether it pushes bytes at any time, to any peer. It then needs an engine that supports pushes."""

    log_messages: bool = False
    """Whether received messages are logged even with `--quiet`, because the service exists to show them."""

    answers_per_second: float | None = None
    """Average rate limit of datagram answers to one host; None for no limit. Required for services that a
    forged source address would turn into an amplifier or an endless loop."""

    @abstractmethod
    def open(self, peer: Peer, push: Push) -> Conversation:
        """Return a conversation with a new peer. `push` does nothing unless `pushes` is true."""

    def answer(self, datagram: bytes, peer: Peer) -> bytes | None:
        """Return the answer to one datagram, or None for no answer.

        By default it is the output of a conversation that receives the datagram and then EOF; None if empty.
        """
        conversation = self.open(peer, discard_push)
        try:
            output = conversation.start()
            if datagram and not conversation.done:
                output += conversation.receive(datagram)
            if not conversation.done:
                output += conversation.end()
            return output or None
        finally:
            conversation.closed()


def discard_push(_data: bytes) -> None:
    """Discard the bytes: the `push` of a service that does not push."""
