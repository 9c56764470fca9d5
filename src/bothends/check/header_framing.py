"""Messages with a head of lines and a body, as in HTTP: encode and decode them (RFC 9112). Pure.

1. The head is a start line and fields, ends with an empty line, and its lines end with CR LF.
2. The body is as long as Content-Length says, or is sent in chunks (Transfer-Encoding: chunked). A response
   of HTTP without either continues to EOF, except to HEAD and with status 1xx, 204 or 304 (section 6.3).
3. The decoder says what is wrong with a message, because that is what a report about a program has to say.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import Final

from bothends.escaping import escape
from bothends.framing import Lines

MAX_HEAD: Final = 65_536  # bytes; servers have limits of 8 to 16 KiB
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*", re.DOTALL)
_STATUS: Final = re.compile(rb"HTTP/\d\.\d (\d{3})(?: |$)")
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")
_NEEDS_BODY: Final = (b"POST", b"PUT", b"PATCH")


@dataclass(frozen=True, slots=True)
class HeaderMessage:
    """A message: its start line, its fields, its body without chunks, and all its bytes."""

    start_line: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    raw: bytes

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of the fields with this name, which has no case (RFC 9110, section 5.1)."""
        return [value for each, value in self.fields if each.lower() == name.lower()]

    @property
    def status(self) -> int:
        """The status of a response of HTTP, or 0."""
        found = _STATUS.match(self.start_line)
        return int(found[1]) if found else 0


def comparable_text(message: HeaderMessage) -> bytes:
    """Return a message as a text, for a response without the fields that differ between right servers."""
    wanted = ("content-type", "location") if message.status else None
    fields = [
        b"\n" + name + b": " + value
        for name, value in message.fields
        if wanted is None or name.decode("latin-1").lower() in wanted
    ]
    body = b"\n\n" + message.body if message.body else b""
    return message.start_line + b"".join(fields) + body


class HeaderFraming(Lines):
    r"""Messages with a head and a body.

    Texts may end the lines of their head with \n; the body is what follows the empty line.
    """

    def encode(self, message: bytes) -> bytes:
        """Return a message with CR LF at the end of each line of its head, and an empty line after it.

        A body gets a Content-Length, unless the head has one, or is sent in two chunks if the head has
        Transfer-Encoding: chunked.
        """
        head, separator, body = _split_text(message)
        lines = [line.removesuffix(b"\r") for line in head.split(b"\n")]
        names = {line.partition(b":")[0].lower() for line in lines[1:]}
        if b"transfer-encoding" in names:
            body = _encode_chunks(body) if separator else b""
        elif b"content-length" not in names and (body or lines[0].split(b" ")[0] in _NEEDS_BODY):
            lines.append(b"Content-Length: %d" % len(body))
        return b"".join(line + b"\r\n" for line in lines if line) + b"\r\n" + body


def body_of(message: bytes) -> bytes:
    """Return the part of a text after its first empty line."""
    return _split_text(message)[2]


def _quote(data: bytes) -> str:
    return f'"{escape(data[:60])}"'


def _split_text(message: bytes) -> tuple[bytes, bytes, bytes]:
    """Split a text at its first empty line."""
    found = re.search(rb"\r?\n\r?\n", message)
    if found is None:
        return message.removesuffix(b"\n"), b"", b""
    return message[: found.start()], found[0], message[found.end() :]


def _encode_chunks(body: bytes) -> bytes:
    middle = (len(body) + 1) // 2
    pieces = [piece for piece in (body[:middle], body[middle:]) if piece]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


class HeaderDecoder:
    """The state of a stream of such messages.

    `error` says what is wrong with the message that is being received; nothing is decoded after that.
    """

    def __init__(self) -> None:
        self.error = ""
        self._buffer = bytearray()  # the bytes of the unfinished message
        self._head: HeaderMessage | None = None
        self._body = bytearray()
        self._at = 0  # how much of the buffer is decoded
        self._remaining: int | None = None  # bytes of the body, or of a chunk; None: to EOF
        self._chunked = False
        self._in_chunk_end = False  # between the data of a chunk and its CR LF
        self._in_trailer = False
        self._requests: deque[bytes] = deque()

    @property
    def unfinished(self) -> bytes:
        """The bytes of the message that is being received."""
        return bytes(self._buffer)

    def request_sent(self, message: bytes) -> None:
        """Note a request, because a response to HEAD has no body."""
        self._requests.append(message.split(b" ")[0])

    def feed(self, data: bytes) -> list[HeaderMessage]:
        """Take a chunk. Returns: the messages that it completes."""
        self._buffer += data
        messages = []
        while not self.error and (message := self._decode()):
            messages.append(message)
        return messages

    def end(self) -> list[HeaderMessage]:
        """Take EOF. Returns: the message that it completes, if EOF may end it."""
        if self._head is None or self.error or self._chunked or self._remaining is not None:
            return []
        return [self._finish()]

    def describe_unfinished(self) -> str:
        """Return what is missing of the message that is being received, or an empty string."""
        if self._head is None:
            return "its head does not end with an empty line (CR LF CR LF)" if self._buffer else ""
        if self._chunked:
            return "its last chunk (0 CR LF CR LF) is missing"
        if self._remaining is None:
            return "it has no Content-Length and no chunks, so it ends at EOF"
        return (
            f"its Content-Length is {len(self._body) + self._remaining:,}, its body has {len(self._body):,}"
        )

    # Decoding ------------------------------------------------------------------------------------

    def _decode(self) -> HeaderMessage | None:
        if self._head is None and not self._decode_head():
            return None
        if self._chunked:
            return self._finish() if self._decode_chunks() else None
        if self._remaining is None:
            self._body += self._buffer[self._at :]
            self._at = len(self._buffer)
            return None
        self._take_body()
        return self._finish() if not self._remaining else None

    def _take_body(self) -> None:
        piece = self._buffer[self._at : self._at + (self._remaining or 0)]
        self._body += piece
        self._at += len(piece)
        self._remaining = (self._remaining or 0) - len(piece)

    def _finish(self) -> HeaderMessage:
        assert self._head is not None
        head = self._head
        message = HeaderMessage(
            head.start_line, head.fields, bytes(self._body), bytes(self._buffer[: self._at])
        )
        del self._buffer[: self._at]
        self._head, self._at, self._remaining, self._chunked, self._in_trailer = None, 0, None, False, False
        self._body.clear()
        if self._requests and not 100 <= message.status < 200:
            self._requests.popleft()
        return message

    def _decode_head(self) -> bool:
        """Decode the head. Returns: whether it is complete and valid."""
        end = re.search(rb"\n\r?\n", self._buffer)
        if end is None:
            if len(self._buffer) > MAX_HEAD:
                self.error = f"its head has no end after {MAX_HEAD:,} bytes"
            return False
        lines = bytes(self._buffer[: end.start() + 1]).split(b"\n")[:-1]
        if not all(line.endswith(b"\r") for line in lines) or end[0] == b"\n\n":
            self.error = "a line of its head ends with LF, not with CR LF (RFC 9112, section 2.2)"
            return False
        fields = []
        for line in lines[1:]:
            field = _FIELD.fullmatch(line[:-1])
            if field is None:
                self.error = f"its line {_quote(line[:-1])} is not a field NAME: VALUE"
                return False
            fields.append((field[1], field[2]))
        self._head = HeaderMessage(lines[0][:-1], tuple(fields), b"", b"")
        self._at = end.end()
        self._choose_body(self._head)
        return not self.error

    def _choose_body(self, head: HeaderMessage) -> None:
        """Set how the body is delimited (RFC 9112, section 6.3)."""
        codings = b",".join(head.values(b"transfer-encoding")).lower().replace(b" ", b"")
        lengths = set(head.values(b"content-length"))
        bodiless = 100 <= head.status < 200 or head.status in (204, 304)
        if bodiless or (self._requests and self._requests[0] == b"HEAD"):
            self._remaining = 0
        elif codings:
            self._chunked, self._remaining = True, 0
            if codings.rpartition(b",")[2] != b"chunked":
                self.error = f"its Transfer-Encoding {_quote(codings)} does not end with chunked"
        elif len(lengths) > 1 or any(not each.isdigit() for each in lengths):
            self.error = f"its Content-Length is {_quote(b', '.join(sorted(lengths)))}"
        elif lengths:
            self._remaining = int(lengths.pop())
        else:
            self._remaining = None if head.status else 0

    def _decode_chunks(self) -> bool:
        """Decode chunks. Returns: whether the last one is complete."""
        while not self.error:
            if self._remaining:
                self._take_body()
                if self._remaining:
                    return False
                self._in_chunk_end = True
            end = self._buffer.find(b"\n", self._at)
            if end < 0:
                return False
            line = bytes(self._buffer[self._at : end + 1])
            if not line.endswith(b"\r\n"):
                self.error = "a line of its chunks ends with LF, not with CR LF"
            elif self._in_chunk_end:
                self._in_chunk_end = False
                if line != b"\r\n":
                    self.error = f"a chunk is longer than its size: {_quote(line)} follows it"
            elif self._in_trailer:
                if line == b"\r\n":
                    self._at = end + 1
                    return True
            elif size := _CHUNK_LINE.fullmatch(line[:-2]):
                self._remaining = int(size[1], 16)
                self._in_trailer = self._remaining == 0
            else:
                self.error = f"{_quote(line[:-2])} is not the size of a chunk in hexadecimal"
            self._at = end + 1
        return False
