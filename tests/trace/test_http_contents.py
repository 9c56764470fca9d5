"""HTTP answers that are not what they say, and requests whose form a server does not take."""

from __future__ import annotations

import gzip

import pytest

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.registry import RULES
from bothends.trace.model import Point, ProcessEvent
from tests.trace.test_once_each import send
from tests.trace.test_waits import AT_CLIENT, AT_SERVER, SECOND_NS, WaitingTrace

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
GZIP = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n"


def exchange(request: bytes, answer: bytes, status: int = 0) -> WaitingTrace:
    """The client asks, the server answers if there is something to send, and the client exits."""
    trace = WaitingTrace()
    send(trace, 2, 0.1, request)
    if answer:
        send(trace, 1, 0.2, answer)
    trace.trace.processes[2].status = status
    event = ProcessEvent(next(trace.numbers), round(0.5 * SECOND_NS), 2, "ended", "exit", status)
    trace.trace.add(Point(event))
    return trace


def found(trace: WaitingTrace, rule: str) -> list[Finding]:
    trace.trace.freeze()
    return list(RULES[rule](TraceIndex(trace.trace)))


@pytest.mark.parametrize(
    ("answer", "status", "is_found"),
    [
        (b"Hello from my server\r\n", 1, True),
        (b"Hello from my server\r\n", 0, False),  # the client takes it
        (b"HTTP/1.0 200 OK\r\n\r\nhello", 1, False),
        (b"HTT", 1, False),  # cut off
        (b"\x15\x03\x03\x00\x02\x02\x46", 1, False),  # an alert of TLS
        (b"", 1, False),
    ],
)
def test_an_answer_without_a_status_line(answer: bytes, status: int, is_found: bool) -> None:
    assert bool(found(exchange(GET, answer, status), "http-not-answered-in-http")) is is_found


@pytest.mark.parametrize(
    ("request_", "answer", "is_found"),
    [
        (GET, GZIP + b'Content-Length: 8\r\n\r\n{"a": 1}', True),
        (GET, GZIP + b'Transfer-Encoding: chunked\r\n\r\n8\r\n{"a": 1}\r\n0\r\n\r\n', True),
        (GET, GZIP + b"\r\n" + gzip.compress(b"{}", mtime=0), False),
        (GET, GZIP + b"Transfer-Encoding: chunked\r\n\r\n16\r\n" + gzip.compress(b"{}", mtime=0), False),
        (GET, GZIP + b"\r\n", False),
        (GET.replace(b"GET", b"HEAD"), GZIP + b"\r\n{}", False),
        (GET, b'HTTP/1.1 200 OK\r\n\r\n{"a": 1}', False),
    ],
)
def test_a_body_that_is_not_gzip(request_: bytes, answer: bytes, is_found: bool) -> None:
    assert bool(found(exchange(request_, answer), "http-encoding-wrong")) is is_found


@pytest.mark.parametrize(("code", "is_found"), [(b"431 Too Large", True), (b"200 OK", False)])
def test_a_header_that_is_too_large(code: bytes, is_found: bool) -> None:
    request = GET[:-2] + b"Cookie: " + b"x" * 3000 + b"\r\n\r\n"
    findings = found(exchange(request, b"HTTP/1.1 " + code + b"\r\n\r\n"), "http-header-too-large")
    assert ["a header of 3,037 bytes" in finding.text for finding in findings] == [True] * is_found
    assert all('"Cookie"' in finding.text for finding in findings)


@pytest.mark.parametrize(
    ("request_", "answer", "is_found"),
    [(CHUNKED, b"", True), (GET, b"", False), (CHUNKED, b"HTTP/1.1 400 Bad Request\r\n\r\n", False)],
)
def test_a_body_in_chunks_that_gets_no_response(request_: bytes, answer: bytes, is_found: bool) -> None:
    trace = exchange(request_, answer)
    trace.call(1, "close", 0.3, 0.31, socket=AT_SERVER)
    trace.call(2, "read", 0.2, 0.32, socket=AT_CLIENT, requested=8192)
    assert bool(found(trace, "http-chunks-not-read")) is is_found
