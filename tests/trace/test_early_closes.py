"""A client that closes the connection before it reads the answer."""

from __future__ import annotations

import pytest

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.registry import RULES
from bothends.trace.model import DescriptorChange, Point, ProcessEvent
from tests.trace.test_waits import AT_CLIENT, AT_SERVER, SECOND_NS, WaitingTrace


def closed(*, status: int | None, reads: bool = False, exits_at: float = 0.4) -> WaitingTrace:
    """The client sends, closes at 0.3 s and exits; the server answers at 0.5 s."""
    trace = WaitingTrace()
    trace.trace.processes[2].command = "java Client"
    trace.call(2, "write", 0.1, 0.2, socket=AT_CLIENT, size=5, data=b"hello", requested=5)
    trace.call(1, "read", 0.1, 0.25, socket=AT_SERVER, size=5, data=b"hello", requested=8192)
    if reads:
        trace.call(2, "read", 0.25, 0.28, socket=AT_CLIENT, size=2, data=b"ok", requested=8192)
    trace.call(2, "close", 0.3, 0.31, socket=AT_CLIENT)
    change = DescriptorChange(round(0.3 * SECOND_NS), AT_CLIENT, 2, 3, is_open=False)
    trace.trace.add_descriptor_change(change)
    if status is not None:
        at = round(exits_at * SECOND_NS)
        trace.trace.add(Point(ProcessEvent(next(trace.numbers), at, 2, "ended", "exit", status)))
        trace.trace.processes[2].status = status
    trace.call(1, "write", 0.5, 0.6, socket=AT_SERVER, size=4, data=b"hi!\n", requested=4)
    return trace


def found(trace: WaitingTrace) -> list[Finding]:
    trace.trace.freeze()
    return list(RULES["closed-before-answer"](TraceIndex(trace.trace)))


def test_a_client_that_fails_without_the_answer() -> None:
    (finding,) = found(closed(status=1))
    assert '"hi!\\n", 4 bytes' in finding.text
    assert "In Java" in finding.text


@pytest.mark.parametrize(
    "trace",
    [
        closed(status=0),  # it wanted no answer
        closed(status=-15),
        closed(status=None),
        closed(status=1, reads=True),
        closed(status=1, exits_at=2.3),  # it fails for another reason
    ],
)
def test_a_client_that_needs_no_answer(trace: WaitingTrace) -> None:
    assert not found(trace)
