"""`pages`: one request, one answer, whatever else comes."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.services.base import nowhere
from bothends.services.http_pages import HEAD, Page, Pages
from tests.services.scripted import PEER, cut_anywhere, cuts, kept, single, talk


def draining() -> Page:
    return Page(b"draining\n", status=HTTPStatus.SERVICE_UNAVAILABLE)


def broken() -> Page:
    raise RuntimeError("no figures today")


PAGES = Pages(
    {"/metrics": lambda: Page(b"figures 1\n", "text/plain; version=0.0.4"), "/health": draining, "/x": broken}
)
FIGURES = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: 10\r\n"
    b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
)


def status_of(said: bytes) -> int:
    assert said.startswith(b"HTTP/1.1 ")
    return int(said.split()[1])


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n",
        b"GET /metrics HTTP/1.0\n\n",
        b"\r\nGET /metrics?debug=1 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"GET HTTP://here:9100/metrics HTTP/1.1\r\nHost: here:9100\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n",
    ],
)
def test_a_page_is_shown_once_however_it_is_asked_for(request_: bytes) -> None:
    for chunks in [[request_], single(request_), *cuts(request_)]:
        shown = talk(PAGES, chunks)
        assert shown.said == FIGURES + b"figures 1\n"
        assert shown.done
        assert shown.failure is None


def test_head_is_the_same_without_the_page() -> None:
    assert talk(PAGES, [b"HEAD /metrics HTTP/1.1\r\n\r\n"]).said == FIGURES


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /health HTTP/1.1\r\n\r\n", 503),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET http://here HTTP/1.1\r\n\r\n", 404),
        (b"GET /\xff\x00 HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"get /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET /metrics HTTP/2.0\r\n\r\n", 505),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\n", 400),
        (b"GET /" + b"x" * HEAD + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * HEAD, 431),
    ],
)
def test_what_cannot_be_shown_is_told_with_a_status(request_: bytes, status: int) -> None:
    for chunks in ([request_], single(request_)):
        shown = talk(PAGES, chunks)
        assert status_of(shown.said) == status
        head, _, body = shown.said.partition(b"\r\n\r\n")
        assert b"Content-Length: %d" % len(body) in head


def test_a_method_that_is_not_there_is_told_which_are() -> None:
    assert b"\r\nAllow: GET, HEAD\r\n" in talk(PAGES, [b"DELETE /metrics HTTP/1.1\r\n\r\n"]).said


def test_a_page_that_cannot_be_made_tells_the_log_and_not_the_client() -> None:
    shown = talk(PAGES, [b"GET /x HTTP/1.1\r\n\r\n"])
    assert status_of(shown.said) == 500
    assert b"no figures" not in shown.said
    assert isinstance(shown.failure, RuntimeError)


def test_who_says_nothing_is_told_nothing() -> None:
    assert talk(PAGES, []).said == talk(PAGES, [b"\r\n\n"]).said == b""


def test_an_endless_head_is_not_kept() -> None:
    conversation = PAGES.open(PEER, nowhere)
    for _ in range(1000):
        if conversation.done:
            break
        conversation.receive(b"x" * 1000)
    assert conversation.done
    assert kept(conversation) < 2 * HEAD


@given(
    cut_anywhere(st.binary(max_size=60) | st.binary(max_size=40).map(lambda rest: b"GET /" + rest + b"\n\n"))
)
def test_no_bytes_do_more_than_get_an_answer(chunks: list[bytes]) -> None:
    cut, whole = talk(PAGES, chunks), talk(PAGES, [b"".join(chunks)])
    assert cut.said == whole.said
    assert cut.failure is None
    assert cut.said == b"" or status_of(cut.said) in (200, 400, 404, 405, 503, 505)
