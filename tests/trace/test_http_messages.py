"""What HTTP messages lack."""

from __future__ import annotations

import pytest

from bothends.trace.findings.http_messages import body_lengths, missing_of_request, missing_of_response

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "missing"),
    [
        (GET, ""),
        (b"hello\n", ""),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", "the empty line"),
        (b"GET / HTTP/1.1\nHost: x\n\n", "\\n alone"),
        (b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhello", "5 of the 10 bytes"),
    ],
)
def test_missing_of_request(request_: bytes, missing: str) -> None:
    found = missing_of_request(request_, len(request_))
    assert missing in found
    assert bool(found) == bool(missing)


@pytest.mark.parametrize(
    ("body", "missing"),
    [
        (b"3\r\none\r\n0\r\n\r\n", ""),
        (b"3\r\none\r\n0\r\nTrailer: x\r\n\r\n", ""),
        (b"3;name=value\r\none\r\n", "the last chunk"),
        (b"5\r\none\r\n", "a part of its last chunk"),
        (b"3\r\none\r\n0\r\n", "the empty line after the last chunk"),
        (b"no chunk", ""),
    ],
)
def test_missing_of_chunked_response(body: bytes, missing: str) -> None:
    found = missing_of_response(CHUNKED + body, len(CHUNKED + body), GET)
    assert missing in found
    assert bool(found) == bool(missing)


def test_missing_of_long_chunked_response_is_not_judged() -> None:
    assert not missing_of_response(CHUNKED + b"3\r\none\r\n", 100_000, GET)


def test_body_lengths_compares_announced_with_sent() -> None:
    assert body_lengths(HEAD + b"hel", len(HEAD) + 3, GET) == (5, 3)
    assert body_lengths(HEAD + b"hello!!", len(HEAD) + 7, GET) == (5, 7)


@pytest.mark.parametrize(
    ("response", "request_"),
    [
        (HEAD, b"HEAD / HTTP/1.1\r\n\r\n"),
        (HEAD + b"helloHTTP/1.1 200 OK\r\n", GET),
        (HEAD + b"hello\r\n", GET),
        (HEAD + b"hello!!", GET + GET),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", GET),
        (CHUNKED + b"3\r\none\r\n", GET),
    ],
)
def test_body_lengths_other_responses_are_not_judged(response: bytes, request_: bytes) -> None:
    assert body_lengths(response, len(response), request_) is None
