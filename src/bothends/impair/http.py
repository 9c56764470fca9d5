"""As much of HTTP/1.1 (RFC 9112) as the API needs, without any socket: bytes in, requests out.

Bodies come with a length or in chunks. A head is bounded by HEAD bytes and a body by BODY; who goes beyond,
or breaks the grammar, gets an answer that says so, and the connection ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

MAX_HEAD_SIZE: Final = 16 * 1024
MAX_BODY_SIZE: Final = 4 * 1024 * 1024  # a list of some ten thousand proxies

_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_REQUEST: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/1\.([01])")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\r\n]*)?\r?\n")
_LAST_CHUNK: Final = re.compile(rb"0+[^\n]*\n(?:[^\r\n]+\r?\n)*\r?\n")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class BadRequest(Exception):
    """What came is no request that can be answered; the connection ends with `status` and `reason`."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request. `target` is as it came; the names of `fields` are in lower case."""

    method: str
    target: str
    fields: dict[str, str]
    body: bytes
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What is answered."""

    status: HTTPStatus
    body: bytes = b""
    media_type: str = "application/json"

    def encode(self, *, keep_alive: bool, with_body: bool = True) -> bytes:
        """Its bytes; without the body for HEAD."""
        head = [f"HTTP/1.1 {self.status.value} {self.status.phrase}"]
        if self.status is not HTTPStatus.NO_CONTENT:
            head += [f"Content-Type: {self.media_type}", f"Content-Length: {len(self.body)}"]
        head += ["Cache-Control: no-store", f"Connection: {'keep-alive' if keep_alive else 'close'}"]
        return "".join(f"{line}\r\n" for line in [*head, ""]).encode("ascii") + (
            self.body if with_body else b""
        )


class RequestParser:
    """The requests of one connection, however their bytes are cut."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._head: tuple[str, str, dict[str, str], bool] | None = None
        self._body = bytearray()
        self.continue_response = b""
        """What the client waits for before it sends a body; whoever sends it empties this."""

    def feed(self, data: bytes) -> Iterator[HttpRequest]:
        """The requests that these bytes complete. Raises BadRequest."""
        self._data += data
        while True:
            if self._head is None and not self._parse_head():
                return
            assert self._head is not None
            method, target, fields, keeps_alive = self._head
            if not self._parse_body(fields):
                return
            body, self._body, self._head = bytes(self._body), bytearray(), None
            yield HttpRequest(method, target, fields, body, keeps_alive)

    def _parse_head(self) -> bool:
        while self._data.startswith((b"\r", b"\n")):  # section 2.2: an empty line before a request is ignored
            del self._data[:1]
        end = _HEAD_END.search(self._data, 0, MAX_HEAD_SIZE)
        if end is None:
            if len(self._data) >= MAX_HEAD_SIZE:
                raise BadRequest(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a head has {MAX_HEAD_SIZE} bytes at most"
                )
            return False
        first, *lines = re.split(rb"\r?\n", bytes(self._data[: end.start()]))
        del self._data[: end.end()]
        request = _REQUEST.fullmatch(first)
        if request is None:
            raise BadRequest(HTTPStatus.BAD_REQUEST, "the first line is no request of HTTP/1.1")
        fields: dict[str, str] = {}
        for line in lines:
            found = _FIELD.fullmatch(line)
            if found is None:
                raise BadRequest(HTTPStatus.BAD_REQUEST, "a line of the head is no field")
            fields[found[1].decode().lower()] = found[2].decode("latin-1")
        wish = fields.get("connection", "").lower()
        keeps_alive = "close" not in wish and (request[3] == b"1" or "keep-alive" in wish)
        self._head = request[1].decode(), request[2].decode("latin-1"), fields, keeps_alive
        if fields.get("expect", "").lower() == "100-continue":
            self.continue_response = _CONTINUE
        return True

    def _parse_body(self, fields: dict[str, str]) -> bool:
        if "transfer-encoding" in fields:
            if fields["transfer-encoding"].lower() != "chunked" or "content-length" in fields:
                raise BadRequest(HTTPStatus.NOT_IMPLEMENTED, "a body is chunked, or has a length")
            return self._parse_chunks()
        length = fields.get("content-length", "0")
        if not length.isdecimal() or not length.isascii():
            raise BadRequest(HTTPStatus.BAD_REQUEST, "Content-Length is a number")
        if len(length) > 9 or int(length) > MAX_BODY_SIZE:
            raise _too_large()
        if len(self._data) < int(length):
            return False
        self._body += self._data[: int(length)]
        del self._data[: int(length)]
        return True

    def _parse_chunks(self) -> bool:
        """Section 7.1: size, data and an empty line, until a size of 0 and its trailer."""
        while True:
            size = _CHUNK.match(self._data)
            if size is None:
                if len(self._data) > 256 or b"\n" in self._data:
                    raise BadRequest(HTTPStatus.BAD_REQUEST, "no size of a chunk")
                return False
            count = int(size[1], 16)
            if count == 0:
                end = _LAST_CHUNK.match(self._data)
                if end is None:
                    if len(self._data) > MAX_HEAD_SIZE:
                        raise BadRequest(HTTPStatus.BAD_REQUEST, "a trailer that doesn't end")
                    return False
                del self._data[: end.end()]
                return True
            if len(self._body) + count > MAX_BODY_SIZE:
                raise _too_large()
            if len(self._data) < size.end() + count + 2:
                return False
            self._body += self._data[size.end() : size.end() + count]
            del self._data[: size.end() + count]
            if self._data[:2] != b"\r\n":
                raise BadRequest(HTTPStatus.BAD_REQUEST, "a chunk is longer than it says")
            del self._data[:2]


def _too_large() -> BadRequest:
    return BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has {MAX_BODY_SIZE} bytes at most")
