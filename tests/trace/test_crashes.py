"""Servers that exit with an error before a request, or after its answer."""

from __future__ import annotations

import pytest

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.registry import RULES
from bothends.trace.model import DescriptorChange, Point, ProcessEvent, Socket
from tests.trace.test_waits import (
    AT_CLIENT,
    AT_SERVER,
    CLIENT,
    LISTENER,
    SECOND,
    SECOND_NS,
    SERVER,
    WaitingTrace,
)

ANSWER = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nno\n"


def served() -> WaitingTrace:
    """The server has listened, and accepted the connection of the client."""
    trace = WaitingTrace()
    trace.call(1, "listen", 0.01, 0.02, socket=LISTENER)
    trace.call(1, "accept", 0.02, 0.05, socket=LISTENER, descriptor=3, created_id=AT_SERVER)
    return trace


def exits(trace: WaitingTrace, at: float, status: int) -> None:
    event = ProcessEvent(
        next(trace.numbers), round(at * SECOND_NS), 1, "ended", f"exit status {status}", status
    )
    trace.trace.processes[1].status = status
    trace.trace.add(Point(event))
    for socket in (LISTENER, AT_SERVER):
        trace.trace.add_descriptor_change(DescriptorChange(event.at, socket, 1, 3, is_open=False))


def refused(trace: WaitingTrace, at: float) -> None:
    """The client connects once more."""
    trace.socket(Socket(SECOND, "inet", "stream", 0, CLIENT._replace(port=40002), SERVER), 2)
    call = trace.call(2, "connect", at, at + 0.01, socket=SECOND, address=SERVER)
    call.result, call.error = -1, "ECONNREFUSED"


def found(trace: WaitingTrace) -> list[Finding]:
    trace.trace.freeze()
    return list(RULES["exited-with-error"](TraceIndex(trace.trace)))


def answered(trace: WaitingTrace) -> None:
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    trace.call(2, "write", 0.1, 0.2, socket=AT_CLIENT, size=len(request), data=request)
    trace.call(1, "read", 0.1, 0.3, socket=AT_SERVER, size=len(request), data=request, requested=65536)
    trace.call(1, "write", 0.3, 0.4, socket=AT_SERVER, size=len(ANSWER), data=ANSWER)
    trace.call(2, "read", 0.4, 0.5, socket=AT_CLIENT, size=len(ANSWER), data=ANSWER, requested=65536)


@pytest.mark.parametrize(("status", "is_found"), [(1, True), (0, False), (-15, False)])
def test_an_exit_after_an_answer_that_costs_the_next_client(status: int, is_found: bool) -> None:
    trace = served()
    answered(trace)
    exits(trace, 0.6, status)
    refused(trace, 1)
    assert bool(found(trace)) is is_found


def test_an_exit_that_no_client_notices_is_no_finding() -> None:
    trace = served()
    answered(trace)
    exits(trace, 0.6, 1)
    assert not found(trace)


@pytest.mark.parametrize(("command", "says_callback"), [("node server.js", True), ("./server", False)])
def test_a_second_response_of_node_is_named(command: str, says_callback: bool) -> None:
    trace = served()
    trace.trace.processes[1].command = command
    answered(trace)
    exits(trace, 0.6, 1)
    refused(trace, 1)
    (finding,) = found(trace)
    assert ("ERR_HTTP_HEADERS_SENT" in finding.text) is says_callback
    assert "was refused" in finding.text


@pytest.mark.parametrize(("command", "says_key"), [("java Server", True), ("./server", False)])
def test_accept_without_a_connection(command: str, says_key: bool) -> None:
    trace = served()
    trace.trace.processes[1].command = command
    trace.call(2, "write", 0.1, 0.2, socket=AT_CLIENT, size=6, data=b"hello\n")
    call = trace.call(1, "accept", 0.3, 0.31, socket=LISTENER, descriptor=3)
    call.result, call.error = -1, "EAGAIN"
    wait = trace.call(2, "read", 0.3, 0.5, socket=AT_CLIENT, requested=8192, descriptor=4)
    wait.result, wait.error = -1, "ECONNRESET"
    exits(trace, 0.4, 1)
    (finding,) = found(trace)
    assert "EAGAIN" in finding.text
    assert "read(4, 8192) failed with ECONNRESET" in finding.text
    assert ("selectedKeys" in finding.remedy) is says_key


def test_a_time_limit_of_node_is_not_one_for_new_connections() -> None:
    trace = served()
    trace.trace.processes[1].command = "node server.js"
    trace.call(1, "epoll_wait", 0.5, 0.8, sockets=(LISTENER,), timeout_ns=300_000_000)
    exits(trace, 0.9, 1)
    trace.trace.freeze()
    assert not list(RULES["exited-on-timeout"](TraceIndex(trace.trace)))
