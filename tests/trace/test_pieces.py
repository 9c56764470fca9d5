"""A request of JSON in pieces, and the time limit that V8 gives a wait of Node.js."""

from __future__ import annotations

from typing import Any

import pytest

from bothends.trace.findings.base import TraceIndex
from bothends.trace.findings.registry import RULES
from bothends.trace.findings.standstill import Moment
from bothends.trace.model import Point, ProcessEvent
from tests.trace.test_waits import AT_CLIENT, AT_SERVER, SECOND_NS, WaitingTrace


def in_pieces(pieces: list[bytes], limit: float | None = None) -> WaitingTrace:
    """The client sends a request, the server reads it in pieces, and both wait for 4 s in epoll_wait()."""
    trace = WaitingTrace()
    for number in (1, 2):
        trace.trace.processes[number].command = "node program.js"
    request = b"".join(pieces)
    trace.call(2, "write", 0.1, 0.2, socket=AT_CLIENT, size=len(request), data=request)
    for at, piece in enumerate(pieces):
        read: dict[str, Any] = {"socket": AT_SERVER, "size": len(piece), "data": piece, "requested": 65536}
        trace.call(1, "read", 0.3 + at / 100, 0.301 + at / 100, **read)
    timeout = None if limit is None else round(limit * SECOND_NS)
    trace.call(1, "epoll_wait", 0.5, sockets=(AT_SERVER,), timeout_ns=timeout)
    trace.call(2, "epoll_wait", 0.5, sockets=(AT_CLIENT,))
    trace.trace.frozen_at = round(4.5 * SECOND_NS)
    trace.trace.freeze()
    return trace


@pytest.mark.parametrize(
    ("pieces", "limit", "is_found"),
    [
        ([b'{"items": [', b"1, 2]}"], None, True),
        ([b'{"items": [', b"1, 2]}"], 8.1, True),  # V8's timer
        ([b'{"items": [', b"1, 2]}"], 5, False),  # the program's: it may answer then
        ([b'{"items": [', b"1, 2]}\n"], None, False),
        ([b'{"items": [1, 2]}'], None, False),
        ([b"{items: [", b"1, 2]}"], None, False),
    ],
)
def test_request_of_json_in_several_reads(pieces: list[bytes], limit: float | None, is_found: bool) -> None:
    found = RULES["request-ignored"](TraceIndex(in_pieces(pieces, limit).trace))
    assert any("came in pieces" in finding.title for finding in found) is is_found


@pytest.mark.parametrize(
    ("first", "then", "has_limit"),
    [(8.1, 7.6, False), (8.0, 7.5, True), (8.1, 7.0, True), (None, 8.1, False)],
)
def test_a_timer_of_v8_is_no_time_limit(first: float | None, then: float, has_limit: bool) -> None:
    """A later wait up to the same time has what is left of the limit; one up to another time is another's."""
    trace = WaitingTrace()
    trace.trace.processes[1].command = "/usr/bin/node server.js"
    waits: dict[str, Any] = {"sockets": (AT_SERVER,), "result": 1}
    if first is not None:
        trace.call(1, "epoll_wait", 1, 1.5, timeout_ns=round(first * SECOND_NS), **waits)
    trace.call(1, "epoll_wait", 1.5, timeout_ns=round(then * SECOND_NS), sockets=(AT_SERVER,))
    trace.trace.frozen_at = 5 * SECOND_NS
    trace.trace.freeze()
    (state,) = Moment(TraceIndex(trace.trace), 5 * SECOND_NS).threads.values()
    assert state.has_limit is has_limit


@pytest.mark.parametrize(
    ("sent", "read", "status", "is_found"),
    [
        (b'{"items": [1, 2]}', 11, 1, True),
        (b'{"items": [1, 2]}', 17, 1, False),  # the whole of it
        (b'{"items": [1, 2]}', 11, 0, False),
        (b'{"items": 1}\n{"items": 2}\n', 11, 1, False),
        (b"[items] 1, 2, 3", 11, 1, False),
    ],
)
def test_a_reader_that_fails_at_the_first_piece(sent: bytes, read: int, status: int, is_found: bool) -> None:
    trace = WaitingTrace()
    trace.call(2, "write", 0.1, 0.2, socket=AT_CLIENT, size=len(sent), data=sent)
    trace.call(1, "read", 0.2, 0.3, socket=AT_SERVER, size=read, data=sent[:read], requested=read)
    trace.trace.processes[1].status = status
    event = ProcessEvent(next(trace.numbers), round(0.4 * SECOND_NS), 1, "ended", "exit", status)
    trace.trace.add(Point(event))
    trace.trace.freeze()
    assert bool(list(RULES["json-split"](TraceIndex(trace.trace)))) is is_found
