"""A sans-IO subset of HTTP/1.1 (RFC 9112) for the API: bytes in, requests out.

Bodies have a Content-Length or are chunked. A head has at most MAX_HEAD_SIZE bytes and a body at most
MAX_BODY_SIZE. A larger or malformed request gets an error response, after which the connection is closed.
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
    """A malformed request. The server responds with `status` and `reason`, and closes the connection."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request. `target` is not decoded; the names of `fields` are in lower case."""

    method: str
    target: str
    fields: dict[str, str]
    body: bytes
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response."""

    status: HTTPStatus
    body: bytes = b""
    media_type: str = "application/json"

    def encode(self, *, keep_alive: bool, with_body: bool = True) -> bytes:
        """Return the response as bytes; without the body for HEAD."""
        head = [f"HTTP/1.1 {self.status.value} {self.status.phrase}"]
        if self.status is not HTTPStatus.NO_CONTENT:
            head += [f"Content-Type: {self.media_type}", f"Content-Length: {len(self.body)}"]
        head += ["Cache-Control: no-store", f"Connection: {'keep-alive' if keep_alive else 'close'}"]
        return "".join(f"{line}\r\n" for line in [*head, ""]).encode("ascii") + (
            self.body if with_body else b""
        )


class RequestParser:
    """Parses the requests of one connection, whatever the chunking."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._head: tuple[str, str, dict[str, str], bool] | None = None
        self._body = bytearray()
        self.continue_response = b""
        """A "100 Continue" response that the client waits for. The caller sends and clears it."""

    def feed(self, data: bytes) -> Iterator[HttpRequest]:
        """Yield the requests that these bytes complete. Raises BadRequest."""
        self._data += data
        while True:
            if self._head is None and not self._parse_head():
                return
            assert self._head is not None
            method, target, fields, keep_alive = self._head
            if not self._parse_body(fields):
                return
            body, self._body, self._head = bytes(self._body), bytearray(), None
            yield HttpRequest(method, target, fields, body, keep_alive)

    def _parse_head(self) -> bool:
        while self._data.startswith((b"\r", b"\n")):  # section 2.2: ignore an empty line before a request
            del self._data[:1]
        end = _HEAD_END.search(self._data, 0, MAX_HEAD_SIZE)
        if end is None:
            if len(self._data) >= MAX_HEAD_SIZE:
                raise BadRequest(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                    f"the request head exceeds {MAX_HEAD_SIZE} bytes",
                )
            return False
        first, *lines = re.split(rb"\r?\n", bytes(self._data[: end.start()]))
        del self._data[: end.end()]
        request = _REQUEST.fullmatch(first)
        if request is None:
            raise BadRequest(HTTPStatus.BAD_REQUEST, "malformed request line")
        fields: dict[str, str] = {}
        for line in lines:
            found = _FIELD.fullmatch(line)
            if found is None:
                raise BadRequest(HTTPStatus.BAD_REQUEST, "malformed header field")
            fields[found[1].decode().lower()] = found[2].decode("latin-1")
        connection = fields.get("connection", "").lower()
        keep_alive = "close" not in connection and (request[3] == b"1" or "keep-alive" in connection)
        self._head = request[1].decode(), request[2].decode("latin-1"), fields, keep_alive
        if fields.get("expect", "").lower() == "100-continue":
            self.continue_response = _CONTINUE
        return True

    def _parse_body(self, fields: dict[str, str]) -> bool:
        if "transfer-encoding" in fields:
            if fields["transfer-encoding"].lower() != "chunked" or "content-length" in fields:
                raise BadRequest(
                    HTTPStatus.NOT_IMPLEMENTED, "a body must be chunked or have a Content-Length"
                )
            return self._parse_chunks()
        length = fields.get("content-length", "0")
        if not length.isdecimal() or not length.isascii():
            raise BadRequest(HTTPStatus.BAD_REQUEST, "Content-Length is not a number")
        if len(length) > 9 or int(length) > MAX_BODY_SIZE:
            raise _too_large()
        if len(self._data) < int(length):
            return False
        self._body += self._data[: int(length)]
        del self._data[: int(length)]
        return True

    def _parse_chunks(self) -> bool:
        """Parse the chunks of section 7.1: size, data and CRLF, until a size of 0 and the trailer."""
        while True:
            size = _CHUNK.match(self._data)
            if size is None:
                if len(self._data) > 256 or b"\n" in self._data:
                    raise BadRequest(HTTPStatus.BAD_REQUEST, "malformed chunk size")
                return False
            count = int(size[1], 16)
            if count == 0:
                end = _LAST_CHUNK.match(self._data)
                if end is None:
                    if len(self._data) > MAX_HEAD_SIZE:
                        raise BadRequest(HTTPStatus.BAD_REQUEST, f"the trailer exceeds {MAX_HEAD_SIZE} bytes")
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
                raise BadRequest(HTTPStatus.BAD_REQUEST, "a chunk is longer than its size")
            del self._data[:2]


def _too_large() -> BadRequest:
    return BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body exceeds {MAX_BODY_SIZE} bytes")
