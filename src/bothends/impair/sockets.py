"""The two sockets of a proxied connection.

`SocketEnd` transfers the socket's own units: chunks of a stream, or messages. `FramedSocketEnd` decodes a
stream into messages and encodes messages into a stream, so that a stream can be proxied to datagrams, and
toxics of messages apply to it.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Mapping, Sequence
from typing import Final

from bothends.errors import MessageTooLong
from bothends.framing import Framing, LengthPrefixed, Lines
from bothends.sockets.options import reset_on_close

READ_SIZE: Final = 64 * 1024  # bytes per read of a stream: malloc(3) allocates up to 128 KiB without mmap(2)
MAX_MESSAGE_SIZE: Final = (
    256 * 1024
)  # a message of a UNIX socket has 212,960 bytes by default (net.core.wmem_max)

FRAMINGS: Final[Mapping[str, Framing]] = {
    "lines": Lines(),
    "u16": LengthPrefixed(2, 65_535),
    "u32": LengthPrefixed(4, MAX_MESSAGE_SIZE),
}
"""Framings by name: line ends, or a length prefix of two or four bytes (two as in DNS over TCP, RFC 1035
section 4.2.2)."""


class SocketEnd:
    """A socket of the connection: the source of one link and the sink of the other."""

    __slots__ = (
        "_message_oriented",
        "_read_size",
        "eof_received",
        "has_eof",
        "interest",
        "is_reset",
        "socket",
        "watched",
    )

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.interest = 0
        self.watched = False
        self.eof_received = False
        """Whether EOF was received while lingering."""
        self.is_reset = False
        """Whether the peer has reset the connection."""
        self._message_oriented = sock.type != socket.SOCK_STREAM
        self._read_size = MAX_MESSAGE_SIZE if self._message_oriented else READ_SIZE
        self.has_eof = sock.type != socket.SOCK_DGRAM

    @property
    def has_pending(self) -> bool:
        """Whether an encoded message is only partly sent."""
        return False

    def receive(self) -> Sequence[bytes] | None:
        """Read a chunk or messages: empty if there is no input, None at EOF.

        Raises OSError if the peer is gone, MessageTooLong.
        """
        try:
            data = self.socket.recv(self._read_size)
        except BlockingIOError:
            return ()
        return (data,) if data or not self.has_eof else None

    def send(self, pieces: list[bytes | memoryview]) -> int:
        """Send data; see `link.Sink`."""
        try:
            if self._message_oriented or len(pieces) == 1:
                return self.socket.send(pieces[0])
            return self.socket.sendmsg(pieces)
        except BlockingIOError:
            return -1

    def flush(self) -> None:
        """Send the rest of a pending message. Raises OSError if the peer is gone."""

    def send_eof(self) -> None:
        """Half-close; see `link.Sink`."""
        with contextlib.suppress(OSError):  # the peer may be gone already
            self.socket.shutdown(socket.SHUT_WR)

    def reset_on_close(self) -> None:
        """Make the following close send RST, by a linger time of zero (socket(7), SO_LINGER)."""
        reset_on_close(self.socket)


class FramedSocketEnd(SocketEnd):
    """A stream socket that carries messages in a framing."""

    __slots__ = ("_decoder", "_eof_pending", "_framing", "_pending", "_saw_eof")

    def __init__(self, sock: socket.socket, framing: Framing) -> None:
        super().__init__(sock)
        self._framing = framing
        self._decoder = framing.decoder()
        self._pending = b""
        self._eof_pending = False
        self._saw_eof = False

    @property
    def has_pending(self) -> bool:
        """Whether an encoded message is only partly sent."""
        return bool(self._pending)

    def receive(self) -> Sequence[bytes] | None:
        """Read messages; see `SocketEnd`. A message that EOF completes is returned before the None."""
        if self._saw_eof:
            return None
        chunks = super().receive()
        if chunks is not None:
            return [message for chunk in chunks for message in self._decoder.feed(chunk)]
        self._saw_eof = True
        return self._decoder.end() or None

    def send(self, pieces: list[bytes | memoryview]) -> int:
        """Send one message; see `link.Sink`. Until it is sent completely, no other is accepted.

        Raises OSError (EMSGSIZE) for a message that the framing cannot encode.
        """
        if self._pending:
            return -1
        message = bytes(pieces[0])
        try:
            self._pending = self._framing.encode(message)
        except MessageTooLong as error:
            raise OSError(errno.EMSGSIZE, str(error)) from error
        self.flush()
        return len(message)

    def flush(self) -> None:
        """Send the rest of a pending message, then a pending EOF."""
        if self._pending:
            with contextlib.suppress(BlockingIOError):
                self._pending = self._pending[self.socket.send(self._pending) :]
        if self._eof_pending and not self._pending:
            super().send_eof()

    def send_eof(self) -> None:
        """Half-close, after the pending message; see `link.Sink`."""
        self._eof_pending = True
        with contextlib.suppress(OSError):
            self.flush()


def wrap_socket(sock: socket.socket, framing: Framing | None) -> SocketEnd:
    """Wrap a socket, in a framing if it is a stream and `framing` is not None."""
    if framing is not None and sock.type == socket.SOCK_STREAM:
        return FramedSocketEnd(sock, framing)
    return SocketEnd(sock)
