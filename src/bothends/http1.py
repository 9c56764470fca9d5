"""A strict, sans-IO reader of HTTP/1.1 requests (RFC 9112), for the API of `impair` and the pages of `serve`.

Rank 0: bytes in, requests out. It accepts what the grammar allows and nothing else, because a lenient reader
and a proxy before it can disagree about where a request ends (request smuggling, section 11.2):

1. A head has at most MAX_HEAD_SIZE bytes and MAX_FIELDS fields, and no control characters; no folded lines
   (section 5.2), no space before a colon (5.1).
2. Host, Content-Length and Transfer-Encoding occur at most once, and the last two not together (6.3). Host is
   required in HTTP/1.1 (3.2).
3. A body has at most MAX_BODY_SIZE bytes, and a Content-Length or chunks.

Anything else raises BadRequest: the server sends an error response and closes the connection.

`check_browser` tells the requests that a browser sends for a web page of another site from those of programs.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

MAX_HEAD_SIZE: Final = 16 * 1024
MAX_BODY_SIZE: Final = 1024 * 1024  # a list of a thousand proxies, and more
MAX_FIELDS: Final = 100

_MAX_CHUNK_LINE: Final = 256  # bytes: a size with its extensions

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_LINE_END: Final = re.compile(rb"\r?\n")
_REQUEST: Final = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/([0-9])\.([0-9])")
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):([^\x00-\x08\x0a-\x1f\x7f]*)")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_LAST_CHUNK: Final = re.compile(
    rb"0+(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n(?:[^\x00-\x08\x0a-\x1f\x7f]+\r\n)*\r\n"
)
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_PERCENT: Final = r"%[0-9A-Fa-f]{2}"
_HOST: Final = rf"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|{_PERCENT})*)(?::[0-9]*)?"
_AUTHORITY: Final = re.compile(_HOST)
# The characters of RFC 3986, and those that programs send although they should encode them.
_PATH_AND_QUERY: Final = rf"(/(?:[^%?#]|{_PERCENT})*)?(?:\?[^#]*)?"
_ORIGIN_FORM: Final = re.compile(_PATH_AND_QUERY)
_ABSOLUTE_FORM: Final = re.compile(rf"https?://({_HOST}){_PATH_AND_QUERY}", re.IGNORECASE)

_ONCE: Final = frozenset({"host", "content-length", "transfer-encoding"})


class BadRequest(Exception):
    """A request that is not served: the server responds with `status` and `reason`, and then closes."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request.

    `path` is not decoded, and begins with "/"; it is "*" for OPTIONS. The names of `fields` are in lower
    case, and values of the same name are joined with ", ". `authority` is the host with its port: that of the
    target if it has one (section 3.2.2), else Host; "" if HTTP/1.0 has none.
    """

    method: str
    path: str
    authority: str
    fields: dict[str, str]
    body: bytes
    keep_alive: bool

    @property
    def host(self) -> str:
        """The host of `authority` in lower case, without port and brackets."""
        host = (
            re.sub(r":[0-9]*\Z", "", self.authority) if not self.authority.endswith("]") else self.authority
        )
        return host.strip("[]").lower()


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response. `fields` are further header lines."""

    status: HTTPStatus
    body: bytes = b""
    media_type: str = "application/json"
    fields: tuple[str, ...] = ()

    def encode(self, *, keep_alive: bool, with_body: bool = True) -> bytes:
        """Return the response as bytes; without the body for HEAD."""
        head = [f"HTTP/1.1 {self.status.value} {self.status.phrase}"]
        if self.status is not HTTPStatus.NO_CONTENT:
            head += [f"Content-Type: {self.media_type}", f"Content-Length: {len(self.body)}"]
        head += [
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            f"Connection: {'keep-alive' if keep_alive else 'close'}",
            *self.fields,
        ]
        return "".join(f"{line}\r\n" for line in [*head, ""]).encode("ascii") + (
            self.body if with_body else b""
        )


class RequestParser:
    """Parses the requests of one connection, whatever the chunking.

    Args:
        max_head: maximum size of a head, in bytes.
        bodies: whether to read bodies. Otherwise a request ends with its head, and the caller closes the
            connection after the first one.
    """

    def __init__(self, *, max_head: int = MAX_HEAD_SIZE, bodies: bool = True) -> None:
        self._max_head = max_head
        self._bodies = bodies
        self._data = bytearray()
        self._head: HttpRequest | None = None
        self._body = bytearray()
        self._searched = 0  # bytes of a head or a trailer, before which there is no end of it
        self.continue_response = b""
        """A "100 Continue" response that the client waits for. The caller sends and clears it."""

    @property
    def incomplete(self) -> bool:
        """Whether a part of a request has been received."""
        return self._head is not None or bytes(self._data[:2]) not in (b"", b"\r")

    def feed(self, data: bytes) -> Iterator[HttpRequest]:
        """Yield the requests that these bytes complete. Raises BadRequest."""
        self._data += data
        while True:
            if self._head is None and not self._parse_head():
                return
            request = self._head
            assert request is not None
            if self._bodies and not self._parse_body(request.fields):
                return
            body, self._body, self._head = bytes(self._body), bytearray(), None
            yield HttpRequest(
                request.method, request.path, request.authority, request.fields, body, request.keep_alive
            )

    def _parse_head(self) -> bool:
        while self._data.startswith((b"\r\n", b"\n")):  # section 2.2: ignore an empty line before a request
            del self._data[: 1 + self._data.startswith(b"\r")]
        end = _HEAD_END.search(self._data, self._searched, self._max_head)
        self._searched = max(0, len(self._data) - 3)  # the rest of an end may follow
        if end is None:
            if len(self._data) >= self._max_head:
                self._data.clear()
                raise BadRequest(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the head exceeds {self._max_head} bytes"
                )
            return False
        first, *lines = _LINE_END.split(bytes(self._data[: end.start()]))
        del self._data[: end.end()]
        self._searched = 0
        found = _REQUEST.fullmatch(first)
        if found is None:
            raise _bad("the first line is not a request line of HTTP/1.1")
        if found[3] != b"1":
            raise BadRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "use HTTP/1.1")
        is_old = found[4] == b"0"
        fields = _parse_fields(lines)
        _check_framing(fields, is_old=is_old)
        path, authority = _parse_target(found[1].decode(), found[2].decode(), fields, is_old=is_old)
        connection = {each.strip() for each in fields.get("connection", "").lower().split(",")}
        keep_alive = "close" not in connection and (not is_old or "keep-alive" in connection)
        self._head = HttpRequest(found[1].decode(), path, authority, fields, b"", keep_alive)
        if fields.get("expect", "").lower() == "100-continue" and self._bodies:
            self.continue_response = _CONTINUE
        return True

    def _parse_body(self, fields: dict[str, str]) -> bool:
        if "transfer-encoding" in fields:
            return self._parse_chunks()
        length = int(fields.get("content-length", "0"))
        if len(self._data) < length:
            return False
        self._body += self._data[:length]
        del self._data[:length]
        return True

    def _parse_chunks(self) -> bool:
        """Parse the chunks of section 7.1: size, data and CRLF, until a size of 0 and the trailer."""
        while True:
            size = _CHUNK.match(self._data, 0, _MAX_CHUNK_LINE)
            if size is None:
                if len(self._data) >= _MAX_CHUNK_LINE or b"\n" in self._data:
                    raise _bad("malformed chunk size")
                return False
            count = int(size[1], 16)
            if count == 0:
                is_whole = _HEAD_END.search(self._data, self._searched, MAX_HEAD_SIZE)
                self._searched = max(0, len(self._data) - 3)
                if not is_whole and len(self._data) < MAX_HEAD_SIZE:
                    return False
                self._searched = 0
                end = _LAST_CHUNK.match(self._data, 0, MAX_HEAD_SIZE)
                if end is None:
                    raise _bad("the trailer is malformed or too long")
                del self._data[: end.end()]
                return True
            if len(self._body) + count > MAX_BODY_SIZE:
                raise _too_large()
            if len(self._data) < size.end() + count + 2:
                return False
            self._body += self._data[size.end() : size.end() + count]
            del self._data[: size.end() + count]
            if self._data[:2] != b"\r\n":
                raise _bad("a chunk is longer than its size")
            del self._data[:2]


def check_browser(request: HttpRequest, hosts: Collection[str] | None) -> None:
    """Raise BadRequest for a request that a browser sends on behalf of another site's page.

    A page can send requests to any address, and by changing the address of its own name even read the
    responses (DNS rebinding). Then Host has the page's name. So Host must be an IP address, localhost, or one
    of `hosts`, in lower case (None: any name); and the page that sends the request, which a browser names in
    Origin and describes in Sec-Fetch-Site, must be from this server.
    """
    host = request.host
    if hosts is not None and request.authority and not (host in hosts or _is_local_name(host)):
        raise BadRequest(
            HTTPStatus.MISDIRECTED_REQUEST,
            f"Host is {host!r}, which is not a name of this server; use its address",
        )
    origin = request.fields.get("origin")
    if origin is not None and origin.lower() not in (
        f"{scheme}://{request.authority.lower()}" for scheme in ("http", "https")
    ):
        raise BadRequest(HTTPStatus.FORBIDDEN, "requests of other sites are not allowed")
    if request.fields.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise BadRequest(HTTPStatus.FORBIDDEN, "requests of other sites are not allowed")


def _is_local_name(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, section 6.3
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _parse_fields(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > MAX_FIELDS:
        raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {MAX_FIELDS} fields")
    fields: dict[str, str] = {}
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise _bad("malformed header field")
        name, value = found[1].decode().lower(), found[2].decode("latin-1").strip(" \t")
        if name in fields and name in _ONCE:
            raise _bad(f"more than one {name}")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def _check_framing(fields: dict[str, str], *, is_old: bool) -> None:
    """Raise BadRequest unless the length of the body is certain (section 6.3)."""
    length, coding = fields.get("content-length"), fields.get("transfer-encoding")
    if coding is not None:
        if length is not None or is_old:
            raise _bad("Transfer-Encoding together with Content-Length or HTTP/1.0")
        if coding.lower() != "chunked":
            raise BadRequest(HTTPStatus.NOT_IMPLEMENTED, "the only transfer coding is chunked")
    if length is not None:
        if not (length.isascii() and length.isdecimal()):
            raise _bad("Content-Length is not a number")
        if len(length) > 9 or int(length) > MAX_BODY_SIZE:
            raise _too_large()


def _parse_target(method: str, target: str, fields: dict[str, str], *, is_old: bool) -> tuple[str, str]:
    """Return path and authority (section 3.2). Raises BadRequest."""
    host = fields.get("host")
    if host is None and not is_old:
        raise _bad("no Host")
    if host is not None and not _AUTHORITY.fullmatch(host):
        raise _bad("Host is not a host and a port")
    if target == "*" and method == "OPTIONS":
        return "*", host or ""
    found = _ORIGIN_FORM.fullmatch(target)
    if found is not None and found[1]:
        return found[1], host or ""
    found = _ABSOLUTE_FORM.fullmatch(target)
    if found is None or not found[1]:
        raise _bad("the target is neither a path nor a URL")
    return found[2] or "/", found[1]


def _bad(reason: str) -> BadRequest:
    return BadRequest(HTTPStatus.BAD_REQUEST, reason)


def _too_large() -> BadRequest:
    return BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body exceeds {MAX_BODY_SIZE} bytes")
