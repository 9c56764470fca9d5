"""Framing: how a byte stream becomes messages, and messages a byte stream.

Rank 0, sans-IO. A framing is a rule; `decoder()` makes the state for one stream:

1. `feed(data)` takes a chunk, cut anywhere, and gives the messages that it completes.
2. `end()` is called once, at the peer's EOF, and gives what was still open.
3. A message over the limit raises MessageTooLong, and the decoder is of no more use. The messages
   that the same chunk completed before it are in the error's `before`: whether a chunk is cut there
   or not must not change what is answered.
4. What is stored for an unfinished message never exceeds the limit by more than one chunk.

A stream has no messages of its own (RFC 9293, section 3.9.1.2: PUSH is no record mark), so every
protocol over TCP has a framing, if only the one that says where it stops reading.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Final

from bothends.errors import MessageTooLong, UsageError

# The limit that asyncio's streams, and through them many servers, have; it surprises whoever meets
# it unannounced, so it is stated in the documentation of every decorator and can be set there.
DEFAULT_LIMIT: Final = 64 * 1024

_CR: Final = 13


class Decoder(ABC):
    """The state of one stream that is being cut into messages."""

    @abstractmethod
    def feed(self, data: bytes) -> list[bytes]:
        """Take a chunk; give the messages that are now whole, without their framing.

        Raises:
            MessageTooLong: the message at hand has passed the limit.
        """

    def end(self) -> list[bytes]:
        """Take the peer's EOF; give what the framing lets stand as a last message."""
        return []


class Framing(ABC):
    """A rule for cutting a stream into messages."""

    @abstractmethod
    def decoder(self) -> Decoder:
        """A fresh decoder for one stream."""

    @abstractmethod
    def with_limit(self, limit: int) -> Framing:
        """The same rule with another limit, in bytes."""

    @abstractmethod
    def encode(self, message: bytes) -> bytes:
        """The message as it goes onto the stream."""


@dataclass(frozen=True, slots=True)
class Lines(Framing):
    """Messages end with LF; a CR before it is taken off. Answers end with LF.

    `limit` is the longest line in bytes, without its end. Bytes after the last LF are a message of
    their own at EOF: whoever forgets the last newline is still answered.
    """

    limit: int = DEFAULT_LIMIT

    def decoder(self) -> Decoder:
        """See Framing.decoder."""
        return _LineDecoder(self.limit)

    def with_limit(self, limit: int) -> Lines:
        """See Framing.limited."""
        return replace(self, limit=limit)

    def encode(self, message: bytes) -> bytes:
        """See Framing.encode."""
        return message + b"\n"


class _LineDecoder(Decoder):
    __slots__ = ("_limit", "_partial")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # The line at hand. A bytearray grows in place: joining bytes at every chunk would copy a long
        # line as many times as it has chunks, and a list of tiny pieces would outweigh them by far.
        self._partial = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """See Decoder.feed."""
        # Most chunks hold neither a CR nor a line that could be too long, and continue none: one look
        # at all of their lines saves a look at each. (CR is looked for as a number: a bytes object would be
        # tried as one first, which takes nine times as long.)
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
        # One byte more than the limit may stand open: it can still be the CR of CR LF.
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
    """Messages follow their length, an unsigned number of `width` bytes in network byte order.

    `limit` is the longest message in bytes. A message that EOF cuts short is dropped: its length
    says that it is not whole.
    """

    width: int = 4
    limit: int = DEFAULT_LIMIT

    def __post_init__(self) -> None:
        # Without a byte of length every place is the start of one more empty message.
        if not 1 <= self.width <= 8:
            raise UsageError(f"LengthPrefixed({self.width}): a length has 1 to 8 bytes")

    def decoder(self) -> Decoder:
        """See Framing.decoder."""
        return _LengthDecoder(self.width, self.limit)

    def with_limit(self, limit: int) -> LengthPrefixed:
        """See Framing.limited."""
        return replace(self, limit=limit)

    def encode(self, message: bytes) -> bytes:
        """See Framing.encode.

        Raises:
            MessageTooLong: the length does not fit into `width` bytes.
        """
        if len(message) >= 1 << (8 * self.width):
            raise MessageTooLong((1 << (8 * self.width)) - 1, len(message))
        return len(message).to_bytes(self.width, "big") + message


class _LengthDecoder(Decoder):
    __slots__ = ("_buffer", "_limit", "_width")

    def __init__(self, width: int, limit: int) -> None:
        self._width = width
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """See Decoder.feed."""
        buffer = self._buffer
        buffer += data
        messages: list[bytes] = []
        at = 0
        while len(buffer) - at >= self._width:
            start = at + self._width
            size = int.from_bytes(buffer[at:start], "big")
            if size > self._limit:
                raise MessageTooLong(self._limit, size, messages)
            if len(buffer) - start < size:
                break
            messages.append(bytes(buffer[start : start + size]))
            at = start + size
        del buffer[:at]
        return messages
