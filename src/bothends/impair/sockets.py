"""The two ends of a connection: sockets, and what is read from them and written to them.

`End` is for what the socket itself carries: chunks of a stream, or messages. `FramedSocketEnd` cuts a stream into
messages by a framing and joins them again, so that a stream can lead to datagrams, and toxics of messages
mean something on it.
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

READ_SIZE: Final = 64 * 1024  # bytes a read of a stream: as much as malloc(3) gives without a system call
MAX_MESSAGE_SIZE: Final = (
    256 * 1024
)  # a message of a UNIX socket has 212,960 bytes by default (net.core.wmem_max)

FRAMINGS: Final[Mapping[str, Framing]] = {
    "lines": Lines(),
    "u16": LengthPrefixed(2, 65_535),
    "u32": LengthPrefixed(4, MAX_MESSAGE_SIZE),
}
"""How a stream may be cut into messages: at line ends, or by a length of two or four bytes before each (two,
as DNS over TCP: RFC 1035 section 4.2.2)."""


class SocketEnd:
    """A socket of the connection: where one direction begins and the other one leads."""

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
        """Whether it has finished while the connection is being closed."""
        self.is_reset = False
        """Whether its peer has reset it."""
        self._message_oriented = sock.type != socket.SOCK_STREAM
        self._read_size = MAX_MESSAGE_SIZE if self._message_oriented else READ_SIZE
        self.has_eof = sock.type != socket.SOCK_DGRAM

    @property
    def has_pending(self) -> bool:
        """Whether it has taken something that the kernel has not."""
        return False

    def receive(self) -> Sequence[bytes] | None:
        """What has come: a chunk or a message, if anything; None at the end.

        Raises OSError when it is gone, MessageTooLong.
        """
        try:
            data = self.socket.recv(self._read_size)
        except BlockingIOError:
            return ()
        return (data,) if data or not self.has_eof else None

    def send(self, pieces: list[bytes | memoryview]) -> int:
        """See direction.Sink."""
        try:
            if self._message_oriented or len(pieces) == 1:
                return self.socket.send(pieces[0])
            return self.socket.sendmsg(pieces)
        except BlockingIOError:
            return -1

    def flush(self) -> None:
        """The socket may take more of what is pending. Raises OSError when it is gone."""

    def send_eof(self) -> None:
        """See direction.Sink."""
        with contextlib.suppress(OSError):  # it is gone already
            self.socket.shutdown(socket.SHUT_WR)

    def reset_on_close(self) -> None:
        """Have the close that follows send RST: a linger time of zero (socket(7), SO_LINGER)."""
        reset_on_close(self.socket)


class FramedSocketEnd(SocketEnd):
    """A stream that carries messages."""

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
        """See End."""
        return bool(self._pending)

    def receive(self) -> Sequence[bytes] | None:
        """See End. What the end completes comes with it: the next call says None."""
        if self._saw_eof:
            return None
        chunks = super().receive()
        if chunks is not None:
            return [message for chunk in chunks for message in self._decoder.feed(chunk)]
        self._saw_eof = True
        return self._decoder.end() or None

    def send(self, pieces: list[bytes | memoryview]) -> int:
        """See direction.Sink: one whole message. Its rest is kept, and no other taken until that has left.

        Raises OSError (EMSGSIZE) for one that the framing cannot say.
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
        """See End."""
        if self._pending:
            with contextlib.suppress(BlockingIOError):
                self._pending = self._pending[self.socket.send(self._pending) :]
        if self._eof_pending and not self._pending:
            super().send_eof()

    def send_eof(self) -> None:
        """See direction.Sink. The last message goes first."""
        self._eof_pending = True
        with contextlib.suppress(OSError):
            self.flush()


def wrap_socket(sock: socket.socket, framing: Framing | None) -> SocketEnd:
    """The end that a socket is."""
    if framing is not None and sock.type == socket.SOCK_STREAM:
        return FramedSocketEnd(sock, framing)
    return SocketEnd(sock)
