"""The parts of a client without a socket: the receive buffer, retry timeouts, and error translation.

Pure: `_core.py` moves the bytes, `blocking.py` and `asyncio.py` wait.

Lines are split here, although `framing` can do it too: a client that shared the server's code would share its
errors, and tests of one against the other would not detect them.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator
from typing import Final

from bothends.errors import BothendsError, ConnectionLost, MessageTooLong, SystemCallFailed

# Bytes requested by one read of a stream: more than a loopback segment, and a page-aligned allocation.
READ_SIZE: Final = 64 * 1024

# Bytes. The kernel silently truncates a datagram or packet that is longer than the read. A UDP payload has at
# most 65,507 bytes; a message of a UNIX socket is limited by its send buffer, 212,992 bytes by default.
MAX_MESSAGE: Final = 256 * 1024

MAX_UDP_PAYLOAD: Final = 65_507

# Seconds: the first wait for the reply to a datagram if there is no timeout (RFC 8085, section 3.1.1).
INITIAL_TIMEOUT: Final = 1.0

NO_REPLY_HINT: Final = "the datagram or its reply was lost, or nothing is listening there"


class ReceiveBuffer:
    """Received data that has not been taken yet, in order.

    On a stream chunk boundaries are ignored; on a message-oriented socket each chunk fed is one message. The
    `take` methods return None while more data is needed; after `eof_received` no more can arrive.
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
        self._searched = 0  # no line ends before this offset, so the search resumes here
        self.size = 0
        self.eof_received = False

    def feed(self, data: bytes) -> None:
        """Add the bytes of one read. Empty data is the peer's EOF, except on a datagram socket."""
        if not data and not self._datagrams:
            self.eof_received = True
        elif self._message_oriented:
            self._messages.append(data)
        else:
            self._buffer += data
        self.size += len(data)

    def take(self, size: int) -> bytes | None:
        """Take at most `size` bytes of a stream, or one message."""
        if self._message_oriented:
            return self._subtract(self._messages.popleft()) if self._messages else None
        return self._consume(min(size, len(self._buffer))) if self._buffer else None

    def take_exactly(self, size: int) -> bytes | None:
        """Take `size` bytes of a stream."""
        return self._consume(size) if len(self._buffer) >= size else None

    def take_line(self) -> bytes | None:
        """Take one line of a stream without its LF or CR LF (the last may lack it), or one message.

        Raises:
            MessageTooLong: the line exceeds the limit; its bytes can still be taken by the other methods.
        """
        if self._message_oriented:
            return self.take(0)
        end = self._buffer.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._buffer)
            # One more byte is allowed, because it may be the CR of CR LF.
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
        """Take everything, messages joined."""
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
    """Yield the seconds to wait for the reply to a datagram, after the first attempt and after each retry.

    Each wait is twice the one before, so that retries do not add to the congestion that may have lost the
    first attempt (RFC 8085, section 3.1.1). Their sum is `timeout`. Without a timeout the last wait is None.
    """
    if timeout is None:
        for attempt in range(retries):
            yield INITIAL_TIMEOUT * 2**attempt
        yield None
    else:
        shortest = timeout / (2 ** (retries + 1) - 1)
        for attempt in range(retries + 1):
            yield shortest * 2**attempt


def translate_oserror(error: OSError, operation: str, target: str, *, datagrams: bool) -> BothendsError:
    """Return the error for a failed read or write of a connected socket."""
    number = error.errno or 0
    if number == errno.EMSGSIZE:
        hint = f"a UDP datagram has at most {MAX_UDP_PAYLOAD:,} bytes" if target.startswith("udp") else ""
        return SystemCallFailed("send a message of this size to", target, number, hint)
    if not datagrams:
        return ConnectionLost(target, operation, number)
    hint = "no socket is bound to that port" if number == errno.ECONNREFUSED else ""
    return SystemCallFailed("reach", target, number, hint)
