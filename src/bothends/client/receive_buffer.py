"""What a client does that needs no socket: it keeps what has come, cuts lines, times repeats, names errors.

Pure: `_core.py` moves the bytes, `blocking.py` and `asyncio.py` wait.

Lines are cut here once more, although `framing` can do it: a client that shared the server's code
would share its mistakes too, and a test that talks to itself would not see them.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator
from typing import Final

from bothends.errors import BothendsError, ConnectionLost, MessageTooLong, SystemCallFailed

# Bytes asked from a stream by one read: more than a loopback segment, and a page-aligned allocation.
READ_SIZE: Final = 64 * 1024

# A datagram or a packet that is longer than the read is cut by the kernel, in silence. A UDP payload
# has 65,507 bytes at most; UNIX sockets carry what fits their send buffer, 212,992 by default.
MAX_MESSAGE: Final = 256 * 1024

MAX_UDP_PAYLOAD: Final = 65_507

# The first wait for a datagram's answer where no time limit says otherwise (RFC 8085, section 3.1.1).
INITIAL_TIMEOUT: Final = 1.0

NO_REPLY_HINT: Final = "no answer (a datagram or its answer may be lost, or nobody listens)"


class ReceiveBuffer:
    """What has come and has not been taken, in the order in which it came.

    On a stream only bytes count; where the socket has boundaries, each piece that was put is one message.
    `take...` give None when more must come first: ask `ended` whether it can.
    """

    __slots__ = (
        "_buffer",
        "_datagrams",
        "_limit",
        "_message_oriented",
        "_messages",
        "_searched",
        "eof_received",
        "size",
    )

    def __init__(self, *, message_oriented: bool, datagrams: bool, limit: int) -> None:
        self._message_oriented = message_oriented
        self._datagrams = datagrams
        self._limit = limit
        self._buffer = bytearray()
        self._messages: deque[bytes] = deque()
        self._searched = 0  # no line ends before this place: it is not looked at twice
        self.size = 0
        self.eof_received = False

    def feed(self, data: bytes) -> None:
        """One read's bytes. None at all is the peer's EOF, except on a datagram socket, which has no end."""
        if not data and not self._datagrams:
            self.eof_received = True
        elif self._message_oriented:
            self._messages.append(data)
        else:
            self._buffer += data
        self.size += len(data)

    def take(self, size: int) -> bytes | None:
        """At most `size` bytes of a stream, or one whole message."""
        if self._message_oriented:
            return self._subtract(self._messages.popleft()) if self._messages else None
        return self._consume(min(size, len(self._buffer))) if self._buffer else None

    def take_exactly(self, size: int) -> bytes | None:
        """`size` bytes of a stream."""
        return self._consume(size) if len(self._buffer) >= size else None

    def take_line(self) -> bytes | None:
        """One line of a stream without its LF or CR LF (the last may lack it), or one whole message.

        Raises:
            MessageTooLong: the line at hand has passed the limit; its bytes can still be taken otherwise.
        """
        if self._message_oriented:
            return self.take(0)
        end = self._buffer.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._buffer)
            # One byte more may stand open: it can still be the CR of CR LF.
            if len(self._buffer) > self._limit + 1:
                raise MessageTooLong(self._limit, len(self._buffer))
            if not (self.eof_received and self._buffer):
                return None
            end = len(self._buffer)
        size = end - 1 if self._buffer[end - 1 : end] == b"\r" else end
        if size > self._limit:
            raise MessageTooLong(self._limit, size)
        line = self._consume(end + 1)[:size]
        self._searched = 0
        return line

    def take_all(self) -> bytes:
        """Everything, messages joined."""
        data = b"".join(self._messages) + bytes(self._buffer)
        self._messages.clear()
        self._buffer.clear()
        self._searched = self.size = 0
        return data

    def _consume(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._searched = max(0, self._searched - size)
        return self._subtract(data)

    def _subtract(self, data: bytes) -> bytes:
        self.size -= len(data)
        return data


def retry_timeouts(timeout: float | None, retries: int) -> Iterator[float | None]:
    """How long to wait for a datagram's answer, after the first try and after each of the repeats.

    Each wait is twice the one before, so that repeats do not add to the congestion that may have lost
    the first (RFC 8085, section 3.1.1), and all of them together are `seconds`. Without a time limit the
    last one is for ever.
    """
    if timeout is None:
        for repeat in range(retries):
            yield INITIAL_TIMEOUT * 2**repeat
        yield None
    else:
        shortest = timeout / (2 ** (retries + 1) - 1)
        for repeat in range(retries + 1):
            yield shortest * 2**repeat


def translate_oserror(error: OSError, doing: str, where: str, *, datagrams: bool) -> BothendsError:
    """What a failed read or write of a socket means for whoever wanted it."""
    number = error.errno or 0
    if number == errno.EMSGSIZE:
        hint = f"a UDP datagram holds {MAX_UDP_PAYLOAD:,} bytes at most" if where.startswith("udp") else ""
        return SystemCallFailed("send a message of this size to", where, number, hint)
    if not datagrams:
        return ConnectionLost(where, doing, number)
    hint = "nobody has this port open there" if number == errno.ECONNREFUSED else ""
    return SystemCallFailed("reach", where, number, hint)
