"""A server and its child that wait for each other on a pipe: on traces made by hand."""

from __future__ import annotations

import pytest

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.child_pipes import child_pipe
from bothends.trace.model import Socket
from tests.trace.test_waits import AT_CLIENT, AT_SERVER, SECOND_NS, WaitingTrace, hello

CHILD, OTHER_CHILD, READ_END, WRITE_END = 3, 4, 10, 11


def trace_of_request() -> WaitingTrace:
    trace = WaitingTrace()
    hello(trace)
    trace.call(2, "recvfrom", 0.4, socket=AT_CLIENT, descriptor=3, requested=10)
    trace.process(CHILD, "server/2", parent=1)
    trace.trace.sockets[READ_END] = Socket(READ_END, "pipe", "stream", 77, peer_inode=-77)
    trace.trace.sockets[WRITE_END] = Socket(WRITE_END, "pipe", "stream", -77, peer_inode=77)
    return trace


def findings_at_end(trace: WaitingTrace) -> list[Finding]:
    trace.trace.frozen_at = 6 * SECOND_NS
    trace.trace.freeze()
    return list(child_pipe(TraceIndex(trace.trace)))


@pytest.mark.parametrize(("writer", "is_found"), [(1, True), (OTHER_CHILD, False)])
def test_child_that_reads_what_its_parent_wrote_waits_for_eof(writer: int, is_found: bool) -> None:
    trace = trace_of_request()
    trace.process(OTHER_CHILD, "server/3", parent=1)
    trace.call(writer, "write", 0.5, 0.6, socket=WRITE_END, descriptor=6, size=21)
    trace.call(CHILD, "read", 0.5, 0.7, socket=READ_END, descriptor=0, size=21)
    trace.blocked(CHILD, "read", 0.8, descriptor=0, requested=4096)
    trace.blocked(1, "read", 0.8, descriptor=7, requested=8192)
    found = findings_at_end(trace)
    assert bool(found) is is_found
    assert not found or "has read 21 bytes from a pipe" in found[0].text
    assert not found or set(found[0].sockets) == {AT_CLIENT, AT_SERVER}


@pytest.mark.parametrize(("other_runs", "is_found"), [(False, True), (True, False)])
def test_child_that_fills_a_pipe_is_not_waited_for(other_runs: bool, is_found: bool) -> None:
    trace = trace_of_request()
    if other_runs:
        trace.process(OTHER_CHILD, "server/3", parent=1)
    trace.call(CHILD, "write", 0.5, 0.6, socket=WRITE_END, descriptor=1, size=65_536)
    trace.blocked(CHILD, "write", 0.7, descriptor=1)
    trace.call(1, "wait4", 0.7)
    found = findings_at_end(trace)
    assert bool(found) is is_found
    assert not found or "has written 65,536 bytes to descriptor 1" in found[0].text
