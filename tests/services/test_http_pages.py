"""`HttpPages`: one request, one response, for any further input."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.endpoints import Address
from bothends.services.base import discard_push
from bothends.services.http_pages import MAX_HEAD, HttpPage, HttpPages
from tests.services.scripted import PEER, bytewise, cuts, random_chunks, retained_bytes, run_conversation


def draining() -> HttpPage:
    return HttpPage(b"draining\n", status=HTTPStatus.SERVICE_UNAVAILABLE)


def broken() -> HttpPage:
    raise RuntimeError("no figures today")


PAGES = HttpPages(
    {
        "/metrics": lambda: HttpPage(b"figures 1\n", "text/plain; version=0.0.4"),
        "/health": draining,
        "/x": broken,
    },
    hosts=["Here"],
)
FIGURES = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: 10\r\n"
    b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
)


def status_of(result: bytes) -> int:
    assert result.startswith(b"HTTP/1.1 ")
    return int(result.split()[1])


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n",
        b"GET /metrics HTTP/1.0\n\n",
        b"\r\nGET /metrics?debug=1 HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\nhello",
        b"GET HTTP://here:9100/metrics HTTP/1.1\r\nHost: here:9100\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n",
    ],
)
def test_get_is_answered_once_for_every_chunking(request_: bytes) -> None:
    for chunks in [[request_], bytewise(request_), *cuts(request_)]:
        shown = run_conversation(PAGES, chunks)
        assert shown.output == FIGURES + b"figures 1\n"
        assert shown.done
        assert shown.failure is None


def test_head_omits_body() -> None:
    assert run_conversation(PAGES, [b"HEAD /metrics HTTP/1.1\r\nHost: here\r\n\r\n"]).output == FIGURES


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /health HTTP/1.1\r\nHost: here\r\n\r\n", 503),
        (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", 404),
        (b"GET http://here HTTP/1.1\r\nHost: here\r\n\r\n", 404),
        (b"GET /\xff HTTP/1.1\r\nHost: here\r\n\r\n", 400),
        (b"GET http://[::1 HTTP/1.1\r\nHost: here\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
        (b"POST /metrics HTTP/1.1\r\nHost: here\r\n\r\n", 405),
        (b"get /metrics HTTP/1.1\r\nHost: here\r\n\r\n", 405),
        (b"GET /metrics HTTP/2.0\r\n\r\n", 505),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\n", 400),
        (b"GET /" + b"x" * MAX_HEAD + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: here\r\n" + b"a: b\r\n" * MAX_HEAD, 431),
    ],
)
def test_error_status(request_: bytes, status: int) -> None:
    for chunks in ([request_], bytewise(request_)):
        shown = run_conversation(PAGES, chunks)
        assert status_of(shown.output) == status
        head, _, body = shown.output.partition(b"\r\n\r\n")
        assert b"Content-Length: %d" % len(body) in head


@pytest.mark.parametrize(
    ("family", "local", "status"),
    [
        ("inet", "127.0.0.1", 421),
        ("inet", "127.9.9.9", 421),
        ("inet6", "::1", 421),
        ("inet", "192.0.2.1", 200),
        ("inet6", "2001:db8::1", 200),
        ("unix", "127.0.0.1", 200),  # a path
    ],
)
def test_host_is_checked_on_loopback_only(
    family: Literal["inet", "inet6", "unix"], local: str, status: int
) -> None:
    peer = replace(PEER, local=Address(family, local, 9100))
    request = b"GET /metrics HTTP/1.1\r\nHost: scraped.example\r\n%b\r\n"
    assert status_of(run_conversation(PAGES, [request % b""], peer).output) == status
    other_site = run_conversation(PAGES, [request % b"Origin: http://evil.example\r\n"], peer)
    assert status_of(other_site.output) in (403, 421)


def test_405_lists_allowed_methods() -> None:
    assert (
        b"\r\nAllow: GET, HEAD\r\n"
        in run_conversation(PAGES, [b"DELETE /metrics HTTP/1.1\r\nHost: here\r\n\r\n"]).output
    )


def test_page_exception_is_500_without_details() -> None:
    shown = run_conversation(PAGES, [b"GET /x HTTP/1.1\r\nHost: here\r\n\r\n"])
    assert status_of(shown.output) == 500
    assert b"no figures" not in shown.output
    assert isinstance(shown.failure, RuntimeError)


def test_empty_request_gets_no_response() -> None:
    assert run_conversation(PAGES, []).output == run_conversation(PAGES, [b"\r\n\n"]).output == b""


def test_oversized_head_is_not_retained() -> None:
    conversation = PAGES.open(PEER, discard_push)
    for _ in range(1000):
        if conversation.done:
            break
        conversation.receive(b"x" * 1000)
    assert conversation.done
    assert retained_bytes(conversation) < 2 * MAX_HEAD


@given(
    random_chunks(st.binary(max_size=60) | st.binary(max_size=40).map(lambda rest: b"GET /" + rest + b"\n\n"))
)
def test_arbitrary_bytes_get_error_status(chunks: list[bytes]) -> None:
    cut, whole = run_conversation(PAGES, chunks), run_conversation(PAGES, [b"".join(chunks)])
    assert cut.output == whole.output
    assert cut.failure is None
    assert cut.output == b"" or status_of(cut.output) in (200, 400, 404, 405, 503, 505)
