"""The two ends of a connection: sockets, and what is read from them and written to them.

`End` is for what the socket itself carries: chunks of a stream, or messages. `FramedEnd` cuts a stream into
messages by a framing and joins them again, so that a stream can lead to datagrams, and toxics of messages
mean something on it.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from bothends.errors import MessageTooLong
from bothends.framing import Framing, LengthPrefixed, Lines

CHUNK: Final = 64 * 1024  # bytes a read of a stream: as much as malloc(3) gives without a system call
MESSAGE: Final = 256 * 1024  # a message of a UNIX socket has 212,960 bytes by default (net.core.wmem_max)

FRAMINGS: Final[Mapping[str, Framing]] = {
    "lines": Lines(),
    "u16": LengthPrefixed(2, 65_535),
    "u32": LengthPrefixed(4, MESSAGE),
}
"""How a stream may be cut into messages: at line ends, or by a length of two or four bytes before each (two,
as DNS over TCP: RFC 1035 section 4.2.2)."""

_RESET: Final = struct.pack("ii", 1, 0)


class End:
    """A socket of the connection: where one direction begins and the other one leads."""

    __slots__ = ("_boundaries", "_chunk", "ended", "has_end", "interest", "is_lost", "socket", "watched")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.interest = 0
        self.watched = False
        self.ended = False
        """Whether it has finished while the connection is being closed."""
        self.is_lost = False
        """Whether its peer has reset it."""
        self._boundaries = sock.type != socket.SOCK_STREAM
        self._chunk = MESSAGE if self._boundaries else CHUNK
        self.has_end = sock.type != socket.SOCK_DGRAM

    @property
    def is_pending(self) -> bool:
        """Whether it has taken something that the kernel has not."""
        return False

    def receive(self) -> Sequence[bytes] | None:
        """What has come: a chunk or a message, if anything; None at the end.

        Raises OSError when it is gone, MessageTooLong.
        """
        try:
            data = self.socket.recv(self._chunk)
        except BlockingIOError:
            return ()
        return (data,) if data or not self.has_end else None

    def send(self, pieces: list[bytes | memoryview]) -> int:
        """See direction.Sink."""
        try:
            if self._boundaries or len(pieces) == 1:
                return self.socket.send(pieces[0])
            return self.socket.sendmsg(pieces)
        except BlockingIOError:
            return -1

    def push(self) -> None:
        """The socket may take more of what is pending. Raises OSError when it is gone."""

    def finish(self) -> None:
        """See direction.Sink."""
        with contextlib.suppress(OSError):  # it is gone already
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Have the close that follows send RST: a linger time of zero (socket(7), SO_LINGER)."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


class FramedEnd(End):
    """A stream that carries messages."""

    __slots__ = ("_decoder", "_finishing", "_framing", "_has_ended", "_pending")

    def __init__(self, sock: socket.socket, framing: Framing) -> None:
        super().__init__(sock)
        self._framing = framing
        self._decoder = framing.decoder()
        self._pending = b""
        self._finishing = False
        self._has_ended = False

    @property
    def is_pending(self) -> bool:
        """See End."""
        return bool(self._pending)

    def receive(self) -> Sequence[bytes] | None:
        """See End. What the end completes comes with it: the next call says None."""
        if self._has_ended:
            return None
        chunks = super().receive()
        if chunks is not None:
            return [message for chunk in chunks for message in self._decoder.feed(chunk)]
        self._has_ended = True
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
        self.push()
        return len(message)

    def push(self) -> None:
        """See End."""
        if self._pending:
            with contextlib.suppress(BlockingIOError):
                self._pending = self._pending[self.socket.send(self._pending) :]
        if self._finishing and not self._pending:
            super().finish()

    def finish(self) -> None:
        """See direction.Sink. The last message goes first."""
        self._finishing = True
        with contextlib.suppress(OSError):
            self.push()


def end_of(sock: socket.socket, framing: Framing | None) -> End:
    """The end that a socket is."""
    if framing is not None and sock.type == socket.SOCK_STREAM:
        return FramedEnd(sock, framing)
    return End(sock)
