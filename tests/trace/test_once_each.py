"""What a connection gets once: the header of an object stream, a place in a selector, an upgrade."""

from __future__ import annotations

import pytest

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.registry import RULES
from bothends.trace.model import Call, Point, ProcessEvent
from tests.trace.test_waits import AT_CLIENT, AT_SERVER, LISTENER, SECOND_NS, WaitingTrace

HEADER = b"\xac\xed\x00\x05"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def send(trace: WaitingTrace, process: int, at: float, data: bytes) -> Call:
    """One end sends, and the other one reads."""
    source, sink = (AT_CLIENT, AT_SERVER) if process == 2 else (AT_SERVER, AT_CLIENT)
    size = len(data)
    trace.call(process, "write", at, at + 0.01, socket=source, size=size, data=data, requested=size)
    return trace.call(
        3 - process, "read", at + 0.02, at + 0.03, socket=sink, size=size, data=data, requested=8192
    )


def found(trace: WaitingTrace, rule: str) -> list[Finding]:
    trace.trace.freeze()
    return list(RULES[rule](TraceIndex(trace.trace)))


@pytest.mark.parametrize(
    ("second", "status", "is_found"),
    [(HEADER + b"t\0\6second", 1, True), (HEADER + b"t\0\6second", 0, False), (b"t\0\6second", 1, False)],
)
def test_a_second_header_of_an_object_stream(second: bytes, status: int, is_found: bool) -> None:
    trace = WaitingTrace()
    send(trace, 2, 0.1, HEADER + b"t\0\5first")
    send(trace, 2, 0.2, second)
    trace.trace.processes[1].status = status
    event = ProcessEvent(next(trace.numbers), round(0.3 * SECOND_NS), 1, "ended", "exit", status)
    trace.trace.add(Point(event))
    assert bool(found(trace, "stream-header-repeated")) is is_found


@pytest.mark.parametrize(
    ("answer", "is_found"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", True),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", False),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 302 Found\r\nLocation: /ws\r\n\r\n", False),
    ],
)
def test_the_answer_to_a_websocket_handshake(answer: bytes, is_found: bool) -> None:
    trace = WaitingTrace()
    send(trace, 2, 0.1, UPGRADE)
    send(trace, 1, 0.2, answer)
    assert [finding.process for finding in found(trace, "http-not-upgraded")] == [1] * is_found


def test_a_client_that_goes_on_without_websocket() -> None:
    trace = WaitingTrace()
    send(trace, 2, 0.1, UPGRADE)
    send(trace, 1, 0.2, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    send(trace, 2, 0.3, b"POST /poll HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    assert not found(trace, "http-not-upgraded")


@pytest.mark.parametrize(
    ("command", "blocks", "watched", "is_named"),
    [
        ("java Server", False, False, True),
        ("java Server", True, False, False),
        ("java Server", False, True, False),
        ("./server", False, False, False),
    ],
)
def test_a_selector_that_was_not_woken(command: str, blocks: bool, watched: bool, is_named: bool) -> None:
    trace = WaitingTrace()
    trace.trace.processes[1].command = command
    trace.trace.sockets[AT_SERVER].blocks = blocks
    trace.call(1, "accept", 0.02, 0.05, socket=LISTENER, created_id=AT_SERVER)
    if watched:
        trace.call(1, "epoll_ctl", 0.06, 0.07, socket=AT_SERVER)
    trace.call(2, "write", 0.1, 0.2, socket=AT_CLIENT, size=5, data=b"hello", requested=5)
    trace.call(1, "accept", 0.4, socket=LISTENER, descriptor=3)
    trace.call(2, "read", 0.4, socket=AT_CLIENT, descriptor=4, requested=8192)
    trace.blocked(1, "epoll_wait", 0.01, thread=109, descriptors_waited=(5,))
    trace.trace.frozen_at = 5 * SECOND_NS
    (finding,) = found(trace, "not-read")
    assert ("not woken" in finding.title) is is_named
