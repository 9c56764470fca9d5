"""The sans-IO HTTP parser: requests in any chunking, and malformed requests."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.http1 import (
    MAX_BODY_SIZE,
    MAX_HEAD_SIZE,
    BadRequest,
    HttpRequest,
    HttpResponse,
    RequestParser,
)

STREAM = (
    b"POST /proxies HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    b"\r\nGET /version HTTP/1.1\nhost: a\n\n"
    b"PATCH /x%20y?z HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n"
    b"0\r\nX: y\r\n\r\n"
    b"DELETE /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
)


def parse(*pieces: bytes) -> list[HttpRequest]:
    parser = RequestParser()
    return [request for piece in pieces for request in parser.feed(piece)]


def test_parser_pipelined_requests() -> None:
    found = parse(STREAM)
    assert [(each.method, each.path, each.body) for each in found] == [
        ("POST", "/proxies", b"hello"),
        ("GET", "/version", b""),
        ("PATCH", "/x%20y", b"abc0123456789"),
        ("DELETE", "/a", b""),
    ]
    assert [each.keep_alive for each in found] == [True, True, True, False]
    assert found[0].fields == {"host": "a", "content-length": "5"}


def test_parser_byte_by_byte_gives_same_requests() -> None:
    assert parse(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == parse(STREAM)


@given(st.integers(0, len(STREAM)), st.integers(0, len(STREAM)))
def test_parser_any_chunking_gives_same_requests(first: int, second: int) -> None:
    one, two = sorted((first, second))
    assert parse(STREAM[:one], STREAM[one:two], STREAM[two:]) == parse(STREAM)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nno field\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_SIZE + 1), 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", 413),
        (b"GET /" + b"x" * MAX_HEAD_SIZE, 431),
    ],
)
def test_parser_invalid_request_raises_bad_request(data: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(data)
    assert caught.value.status == status


@given(st.binary(max_size=200))
def test_parser_any_bytes_raise_only_bad_request(data: bytes) -> None:
    parser = RequestParser()
    try:
        list(parser.feed(data))
    except BadRequest as bad:
        assert 400 <= bad.status < 600  # noqa: PT017


def test_parser_expect_100_continue_is_answered() -> None:
    parser = RequestParser()
    list(parser.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"))
    assert parser.continue_response.startswith(b"HTTP/1.1 100 ")


def test_response_encoding() -> None:
    response = HttpResponse(HTTPStatus.OK, b"{}")
    assert response.encode(keep_alive=True) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: keep-alive\r\n\r\n{}"
    )
    assert response.encode(keep_alive=True, with_body=False).endswith(b"\r\n\r\n")
    assert b"\r\nContent-" not in HttpResponse(HTTPStatus.NO_CONTENT).encode(keep_alive=False)
