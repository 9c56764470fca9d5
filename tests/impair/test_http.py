"""HTTP without sockets: requests however they are cut, and what is no request."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.impair.http import BODY, HEAD, Answer, BadRequest, Reader, Request

STREAM = (
    b"POST /proxies HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    b"\r\nGET /version HTTP/1.1\nhost: a\n\n"
    b"PATCH /x%20y?z HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n"
    b"0\r\nX: y\r\n\r\n"
    b"DELETE /a HTTP/1.1\r\nConnection: close\r\n\r\n"
)


def read(*pieces: bytes) -> list[Request]:
    reader = Reader()
    return [request for piece in pieces for request in reader.feed(piece)]


def test_requests_one_behind_the_other() -> None:
    found = read(STREAM)
    assert [(each.method, each.target, each.body) for each in found] == [
        ("POST", "/proxies", b"hello"),
        ("GET", "/version", b""),
        ("PATCH", "/x%20y?z", b"abc0123456789"),
        ("DELETE", "/a", b""),
    ]
    assert [each.keeps_alive for each in found] == [True, True, True, False]
    assert found[0].fields == {"host": "a", "content-length": "5"}


def test_byte_by_byte_they_are_the_same() -> None:
    assert read(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == read(STREAM)


@given(st.integers(0, len(STREAM)), st.integers(0, len(STREAM)))
def test_cut_anywhere_they_are_the_same(first: int, second: int) -> None:
    one, two = sorted((first, second))
    assert read(STREAM[:one], STREAM[one:two], STREAM[two:]) == read(STREAM)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno field\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (BODY + 1), 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", 413),
        (b"GET /" + b"x" * HEAD, 431),
    ],
)
def test_what_is_no_request_is_told(data: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        read(data)
    assert caught.value.status == status


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_a_bad_request(data: bytes) -> None:
    reader = Reader()
    try:
        list(reader.feed(data))
    except BadRequest as bad:
        assert 400 <= bad.status < 600  # noqa: PT017


def test_who_waits_for_a_word_before_the_body_gets_it() -> None:
    reader = Reader()
    list(reader.feed(b"POST / HTTP/1.1\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"))
    assert reader.says_continue.startswith(b"HTTP/1.1 100 ")


def test_answers() -> None:
    answer = Answer(HTTPStatus.OK, b"{}")
    assert answer.encode(keeps_alive=True) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        b"Cache-Control: no-store\r\nConnection: keep-alive\r\n\r\n{}"
    )
    assert answer.encode(keeps_alive=True, whole=False).endswith(b"\r\n\r\n")
    assert b"Content-" not in Answer(HTTPStatus.NO_CONTENT).encode(keeps_alive=False)
