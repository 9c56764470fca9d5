"""Malformed HTTP at the API of `impair` and the pages of `serve`: an error, and never two requests."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from bothends import http1
from bothends.server import Server
from bothends.services.http_pages import HttpPage, HttpPages
from tests.hostile.api.calls import exchange, running_api

HOST = b"Host: localhost\r\n"
MALFORMED = {
    "two lengths": b"GET /version HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "twice the same length": b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\ncontent-length: 0\r\n\r\n",
    "list of lengths": b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 0, 0\r\n\r\n",
    "signed length": b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: +1\r\n\r\n",
    "length of other digits": b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: \xb2\r\n\r\n",
    "empty length": b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length:\r\n\r\n",
    "length and chunks": b"GET / HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two codings": b"GET / HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunks in HTTP/1.0": b"GET / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
    "NUL in a value": b"GET /version HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n",
    "NUL in a name": b"GET / HTTP/1.1\r\n" + HOST + b"X\0: a\r\n\r\n",
    "NUL in the target": b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n",
    "escape in a value": b"GET / HTTP/1.1\r\n" + HOST + b"X: \x1b[31m\r\n\r\n",
    "lone CR in a value": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\rY: b\r\n\r\n",
    "folded line": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n",
    "space before a colon": b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length : 5\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\n" + HOST + b": a\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "host with a path": b"GET / HTTP/1.1\r\nHost: localhost/x\r\n\r\n",
    "host without its bracket": b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "URL without its bracket": b"GET http://[::1 HTTP/1.1\r\n" + HOST + b"\r\n",
    "URL with half a bracket": b"GET http://[::1/version HTTP/1.1\r\n" + HOST + b"\r\n",
    "URL with a user": b"GET http://a@localhost/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "URL without a host": b"GET http:///version HTTP/1.1\r\n" + HOST + b"\r\n",
    "URL of another scheme": b"GET file:///etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n",
    "fragment": b"GET /version#a HTTP/1.1\r\n" + HOST + b"\r\n",
    "half a percent sign": b"GET /%4 HTTP/1.1\r\n" + HOST + b"\r\n",
    "authority": b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "raw bytes": b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n",
    "many spaces, then NUL": b"GET / HTTP/1.1\r\n" + HOST + b"X:" + b" " * 8000 + b"\0\r\n\r\n",
}


@pytest.fixture(scope="module")
def ports() -> Iterator[list[int]]:
    """The ports of the API and of the pages."""
    pages = HttpPages({"/version": lambda: HttpPage(b"1\n")})
    with running_api() as api, Server(pages, ["tcp://127.0.0.1:0"], engine="poll") as server:
        port = server.endpoints[0].port
        assert port is not None
        yield [api.port, port]


@pytest.mark.parametrize("request_", MALFORMED.values(), ids=MALFORMED)
def test_malformed_request_is_400(ports: list[int], request_: bytes) -> None:
    for port in ports:
        assert exchange(port, request_)[0] == 400


def test_what_follows_a_malformed_request_is_not_served(ports: list[int]) -> None:
    following = b"GET /version HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    for port in ports:
        assert exchange(port, following)[0] == 200
        status, body = exchange(port, MALFORMED["two lengths"] + following)
        assert status == 400
        assert b"HTTP/1.1" not in body.replace(b"line of HTTP/1.1", b"")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /version HTTP/1.0\r\n\r\n",
        b"GET http://[::1]/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /version?a=%20 HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n",
        b"\r\nGET /version HTTP/1.1\r\nHost: localhost\r\nX: \xe9\ta \r\nConnection: close\r\n\r\n",
    ],
)
def test_unusual_but_valid_request_is_served(ports: list[int], request_: bytes) -> None:
    for port in ports:
        assert exchange(port, request_)[0] == 200


class CountingPattern:
    """A pattern that counts the bytes that it is given to search or to match."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self.pattern = pattern
        self.bytes = 0

    def search(self, data: bytearray, start: int, end: int) -> re.Match[bytes] | None:
        self.bytes += min(len(data), end) - start
        return self.pattern.search(data, start, end)

    def match(self, data: bytearray, start: int, end: int) -> re.Match[bytes] | None:
        self.bytes += min(len(data), end) - start
        return self.pattern.match(data, start, end)


FILLER = (b"X: " + b"a" * 123 + b"\r\n") * 90  # below the limits of fields and of bytes


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\n" + HOST + FILLER + b"\r\n",
        b"GET / HTTP/1.1\n" + HOST + FILLER.replace(b"\r\n", b"\n") + b"\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + FILLER + b"\r\n",
        b"POST / HTTP/1.1\r\n"
        + HOST
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"1\r\na\r\n" * 2000
        + b"0\r\n\r\n",
    ],
    ids=["head", "head with LF", "trailer", "many chunks"],
)
def test_request_of_single_bytes_is_searched_in_linear_time(
    request_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    patterns = {name: CountingPattern(getattr(http1, name)) for name in ("_HEAD_END", "_LAST_CHUNK")}
    for name, pattern in patterns.items():
        monkeypatch.setattr(http1, name, pattern)
    parser = http1.RequestParser()
    requests = [each for byte in request_bytes for each in parser.feed(bytes([byte]))]
    assert [each.path for each in requests] == ["/"]
    assert sum(pattern.bytes for pattern in patterns.values()) <= 6 * len(request_bytes)
