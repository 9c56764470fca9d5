"""Framing: split a byte stream into messages, and encode messages into a byte stream.

Rank 0, sans-IO. A framing is a rule; `decoder()` returns the state for one stream:

1. `feed(data)` takes a chunk of any size and returns the messages that it completes.
2. `end()` is called once, at the peer's EOF, and returns the last message, if EOF may end it.
3. A message over the limit raises MessageTooLong, and the decoder must not be used afterwards. The error's
   `completed_messages` are those that the same chunk completed before it: the answers must not depend on how
   the stream is cut into chunks.
4. The decoder stores at most the limit plus one chunk of an unfinished message.

A TCP stream has no message boundaries (RFC 9293 section 3.9.1.2: PUSH is not a record marker), so every
protocol over TCP needs a framing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Final, Literal

from bothends.errors import MessageTooLong, UsageError

__all__ = ["DEFAULT_LIMIT", "Decoder", "FixedSize", "Framing", "LengthPrefixed", "Lines"]

# The limit of asyncio's streams, and so of many servers. Hitting it is a surprise unless it is documented, so
# every decorator states it and lets the user set it.
DEFAULT_LIMIT: Final = 64 * 1024

_CR: Final = 13


class Decoder(ABC):
    """The state of one stream that is split into messages."""

    @abstractmethod
    def feed(self, data: bytes) -> list[bytes]:
        """Take a chunk. Returns the messages that it completes, without their framing.

        Raises:
            MessageTooLong: the current message exceeds the limit.
        """

    def end(self) -> list[bytes]:
        """Take the peer's EOF. Returns the last message, if the framing lets EOF end it."""
        return []


class Framing(ABC):
    """A rule for splitting a stream into messages."""

    @abstractmethod
    def decoder(self) -> Decoder:
        """Return a new decoder for one stream."""

    @abstractmethod
    def with_limit(self, limit: int) -> Framing:
        """Return the same framing with another limit, in bytes."""

    @abstractmethod
    def encode(self, message: bytes) -> bytes:
        """Return a message with its framing."""


@dataclass(frozen=True, slots=True)
class Lines(Framing):
    """Messages end with LF; a CR before it is removed. Encoded messages end with LF.

    `limit` is the maximum length of a line in bytes, without its end. Bytes after the last LF are a message
    at EOF, so a client that omits the last newline still gets an answer.
    """

    limit: int = DEFAULT_LIMIT

    def decoder(self) -> Decoder:
        """See Framing.decoder."""
        return _LineDecoder(self.limit)

    def with_limit(self, limit: int) -> Lines:
        """See Framing.with_limit."""
        return replace(self, limit=limit)

    def encode(self, message: bytes) -> bytes:
        """See Framing.encode."""
        return message + b"\n"


class _LineDecoder(Decoder):
    __slots__ = ("_limit", "_partial")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # The unfinished line. A bytearray grows in place; joining bytes at every chunk would copy a long line
        # once per chunk, and a list of small chunks needs far more memory than their bytes.
        self._partial = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """See Decoder.feed."""
        # Fast path: most chunks have no CR, are no longer than the limit, and do not continue a line, so
        # their lines need no individual check. (CR is an int because `in` with a bytes object first tries to
        # convert it to an int, which takes nine times as long.)
        plain = not self._partial and len(data) <= self._limit and _CR not in data
        lines = data.split(b"\n")
        rest = lines.pop()
        if plain:
            self._partial += rest
            return lines
        if lines:
            if self._partial:
                self._partial += lines[0]
                lines[0] = bytes(self._partial)
                self._partial.clear()
            lines = self._check_limit(lines)
        self._partial += rest
        # The unfinished line may exceed the limit by one byte, which can be the CR of CR LF.
        if len(self._partial) > self._limit + 1:
            raise MessageTooLong(self._limit, len(self._partial), lines)
        return lines

    def end(self) -> list[bytes]:
        """See Decoder.end."""
        if not self._partial:
            return []
        rest = bytes(self._partial)
        self._partial.clear()
        return self._check_limit([rest])

    def _check_limit(self, lines: list[bytes]) -> list[bytes]:
        messages: list[bytes] = []
        for line in lines:
            if line.endswith(b"\r"):
                line = line[:-1]
            if len(line) > self._limit:
                raise MessageTooLong(self._limit, len(line), messages)
            messages.append(line)
        return messages


@dataclass(frozen=True, slots=True)
class LengthPrefixed(Framing):
    """Messages are preceded by their length, an unsigned number of `width` bytes.

    `limit` is the maximum length of a message in bytes; `byteorder`: that of the length, by default network
    byte order. A message that EOF truncates is dropped.
    """

    width: int = 4
    limit: int = DEFAULT_LIMIT
    byteorder: Literal["big", "little"] = "big"

    def __post_init__(self) -> None:
        # With 0 bytes of length, a stream would have infinitely many empty messages.
        if not 1 <= self.width <= 8:
            raise UsageError(f"LengthPrefixed({self.width}): the length must have 1 to 8 bytes")

    def decoder(self) -> Decoder:
        """See Framing.decoder."""
        return _LengthDecoder(self.width, self.limit, self.byteorder)

    def with_limit(self, limit: int) -> LengthPrefixed:
        """See Framing.with_limit."""
        return replace(self, limit=limit)

    def encode(self, message: bytes) -> bytes:
        """See Framing.encode.

        Raises:
            MessageTooLong: the length does not fit into `width` bytes.
        """
        if len(message) >= 1 << (8 * self.width):
            raise MessageTooLong((1 << (8 * self.width)) - 1, len(message))
        return len(message).to_bytes(self.width, self.byteorder) + message


class _LengthDecoder(Decoder):
    __slots__ = ("_buffer", "_byteorder", "_limit", "_width")

    def __init__(self, width: int, limit: int, byteorder: Literal["big", "little"]) -> None:
        self._width = width
        self._limit = limit
        self._byteorder = byteorder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """See Decoder.feed."""
        buffer = self._buffer
        buffer += data
        messages: list[bytes] = []
        at = 0
        while len(buffer) - at >= self._width:
            start = at + self._width
            size = int.from_bytes(buffer[at:start], self._byteorder)
            if size > self._limit:
                raise MessageTooLong(self._limit, size, messages)
            if len(buffer) - start < size:
                break
            messages.append(bytes(buffer[start : start + size]))
            at = start + size
        del buffer[:at]
        return messages


@dataclass(frozen=True, slots=True)
class FixedSize(Framing):
    """Every message has `limit` bytes. A message that EOF truncates is dropped.

    `padding`: the byte that fills shorter messages.
    """

    limit: int
    padding: bytes = b"\0"

    def __post_init__(self) -> None:
        # With 0 bytes, a stream would have infinitely many empty messages.
        if self.limit < 1:
            raise UsageError(f"FixedSize({self.limit}): a message must have at least 1 byte")

    def decoder(self) -> Decoder:
        """See Framing.decoder."""
        return _FixedSizeDecoder(self.limit)

    def with_limit(self, limit: int) -> FixedSize:
        """See Framing.with_limit."""
        return replace(self, limit=limit)

    def encode(self, message: bytes) -> bytes:
        """Return a message, with the padding after it up to the size.

        Raises:
            MessageTooLong: it is longer than the size.
        """
        if len(message) > self.limit:
            raise MessageTooLong(self.limit, len(message))
        return message.ljust(self.limit, self.padding)


class _FixedSizeDecoder(Decoder):
    __slots__ = ("_buffer", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """See Decoder.feed."""
        self._buffer += data
        whole = len(self._buffer) - len(self._buffer) % self._size
        messages = [bytes(self._buffer[at : at + self._size]) for at in range(0, whole, self._size)]
        del self._buffer[:whole]
        return messages
