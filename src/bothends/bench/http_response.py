"""HTTP/1.1 responses (RFC 9112): a strict, sans-IO reader. `native/generator/http.c` is the same in C.

Whatever breaks the grammar raises `MalformedResponse` with one of the reasons in `MALFORMED`, because the end
of such a response, and so the next one, cannot be found for certain. Heads, chunk lines and trailers have
limits. Bodies are not stored: `on_body` receives them piece by piece.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final

MALFORMED: Final = (
    "status line",
    "header field",
    "Content-Length",
    "Transfer-Encoding",
    "chunk",
    "line without CR",
    "head or line too long",
)
"""Reasons, in the order of `enum malformed` in native/generator/generator.h."""

STATUSES: Final = 600
"""Statuses are below this: 100 to 599 (RFC 9110, section 15)."""

_MAX_HEAD: Final = 64 * 1024  # bytes of a head or a trailer
_MAX_CHUNK_LINE: Final = 4096
_MAX_DIGITS: Final = 15  # of Content-Length and, in hexadecimal, of a chunk

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9]) [^\x00-\x08\x0a-\x1f\x7f]*\r\n")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)\r\n")
_CHUNK_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,%d})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n" % _MAX_DIGITS
)
_LENGTH: Final = re.compile(rb"[0-9]{1,%d}" % _MAX_DIGITS)


class MalformedResponse(Exception):
    """A response that breaks the grammar. `reason` is one of `MALFORMED`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What a head says: `length` is Content-Length, or None."""

    status: int
    keep_alive: bool
    chunked: bool
    length: int | None


class Part(Enum):
    """The part of a response that is read next."""

    HEAD = 0
    BODY = 1
    CHUNK_LINE = 2
    CHUNK = 3
    CHUNK_END = 4
    TRAILER = 5
    BODY_TO_EOF = 6


class HttpResponseReader:
    """Reads the responses of one connection, whatever the chunking.

    `no_body`: responses have no body whatever their head says (HEAD). `on_body` is called with pieces of the
    body. After `feed` has returned True, `head` describes the complete response.
    """

    def __init__(self, *, no_body: bool, on_body: Callable[[bytes], None]) -> None:
        self._no_body = no_body
        self._on_body = on_body
        self._part = Part.HEAD
        self._data = bytearray()
        self._searched = 0  # bytes of a unit before which its end is not
        self._remaining = 0
        self.head = ResponseHead(0, keep_alive=False, chunked=False, length=None)

    @property
    def is_partial(self) -> bool:
        """Whether a part of a response has been received."""
        return self._part is not Part.HEAD or bool(self._data)

    def feed(self, data: bytes) -> bool:
        """Add received bytes. Returns whether a response is complete: then call again, with b"".

        Raises MalformedResponse; the connection is then of no more use.
        """
        self._data += data
        while self._data:
            before = self._part, len(self._data)
            if self._read():
                self._part = Part.HEAD
                return True
            if before == (self._part, len(self._data)):
                return False
        return False

    def end(self) -> bool:
        """Process EOF. Returns whether it completes a response, which then has no keep-alive."""
        complete = self._part is Part.BODY_TO_EOF
        self._part = Part.HEAD if complete else self._part
        return complete

    def _read(self) -> bool:
        """Read the current part as far as it has arrived. Returns whether the response is complete."""
        match self._part:
            case Part.HEAD:
                head = self._take(_MAX_HEAD, lines=True)
                return head is not None and self._begin_body(parse_head(head))
            case Part.CHUNK_LINE:
                if (line := self._take(_MAX_CHUNK_LINE, lines=False)) is not None:
                    found = _CHUNK_LINE.fullmatch(line)
                    if found is None:
                        raise MalformedResponse("chunk")
                    self._remaining = int(found[1], 16)
                    self._part = Part.CHUNK if self._remaining else Part.TRAILER
                return False
            case Part.CHUNK_END:
                if not b"\r\n".startswith(self._data[:2]):
                    raise MalformedResponse("chunk")
                if len(self._data) >= 2:
                    del self._data[:2]
                    self._part = Part.CHUNK_LINE
                return False
            case Part.TRAILER:
                return self._take(_MAX_HEAD, lines=True) is not None
            case Part.BODY_TO_EOF:
                self._on_body(bytes(self._data))
                self._data.clear()
                return False
            case _:
                return self._read_counted()

    def _read_counted(self) -> bool:
        piece = bytes(self._data[: self._remaining])
        del self._data[: self._remaining]
        self._remaining -= len(piece)
        self._on_body(piece)
        if self._remaining:
            return False
        is_whole = self._part is Part.BODY
        self._part = Part.CHUNK_END
        return is_whole

    def _begin_body(self, head: ResponseHead) -> bool:
        if head.status == 101:  # no upgrade was asked for
            raise MalformedResponse("status line")
        if head.status < 200:  # an interim response
            return False
        self.head = head
        if self._no_body or head.status in (204, 304) or head.length == 0:
            return True
        if head.chunked:
            self._part = Part.CHUNK_LINE
        elif head.length is not None:
            self._part, self._remaining = Part.BODY, head.length
        else:
            self._part = Part.BODY_TO_EOF
        return False

    def _take(self, limit: int, *, lines: bool) -> bytes | None:
        """Take a line or, if `lines`, lines up to an empty one. Returns None if it is incomplete."""
        data, start = self._data, self._searched
        while (at := data.find(b"\n", start, limit)) >= 0:
            if at == 0 or data[at - 1] != 0x0D:
                raise MalformedResponse("line without CR")
            start = at + 1
            if not lines or at == 1 or data[at - 2] == 0x0A:
                unit = bytes(data[:start])
                del data[:start]
                self._searched = 0
                return unit
        if len(data) >= limit:
            raise MalformedResponse("head or line too long")
        self._searched = len(data)
        return None


@lru_cache(16)  # most heads equal the one before: a server changes its Date once a second
def parse_head(data: bytes) -> ResponseHead:
    """Parse a head, whose lines end with CRLF, the last one being empty. Raises MalformedResponse."""
    first, *lines = data.splitlines(keepends=True) if b"\r\n" in data else [data]
    found = _STATUS_LINE.fullmatch(first)
    if found is None:
        raise MalformedResponse("status line")
    is_old = found[1] == b"0"
    chunked, length, close, keep = False, None, False, False
    for line in lines[:-1]:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise MalformedResponse("header field")
        name, value = field[1].lower(), field[2].strip(b" \t")
        if name == b"content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                raise MalformedResponse("Content-Length")
            length = int(value)
        elif name == b"transfer-encoding":
            if chunked or value.lower() != b"chunked":
                raise MalformedResponse("Transfer-Encoding")
            chunked = True
        elif name == b"connection":
            words = [each.strip(b" \t").lower() for each in value.split(b",")]
            close, keep = close or b"close" in words, keep or b"keep-alive" in words
    if chunked and (length is not None or is_old):  # RFC 9112, sections 6.1 and 6.2
        raise MalformedResponse("Transfer-Encoding")
    return ResponseHead(int(found[2]), not close and (not is_old or keep), chunked, length)
