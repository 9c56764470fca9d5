"""A server that accepts again before it has read from its only connection."""

from __future__ import annotations

import pytest

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.registry import RULES
from tests.trace.test_waits import AT_CLIENT, AT_SERVER, LISTENER, SECOND, SECOND_NS, WaitingTrace


def found(*, earlier: bool = False, thread: int = 101, reads: bool = False) -> list[Finding]:
    """The client sends 10 bytes and waits; the server has accepted, and accepts again."""
    trace = WaitingTrace()
    if earlier:
        trace.call(1, "accept", 0.01, 0.02, socket=LISTENER, created_id=SECOND)
    trace.call(1, "accept", 0.02, 0.05, socket=LISTENER, created_id=AT_SERVER)
    trace.call(2, "write", 0.1, 0.2, socket=AT_CLIENT, size=10, data=b"0123456789", requested=10)
    if reads:
        trace.call(1, "read", 0.2, 0.3, socket=AT_SERVER, size=4, data=b"0123", requested=4)
    trace.call(1, "accept", 0.4, socket=LISTENER, descriptor=3, thread=thread)
    trace.call(2, "read", 0.4, socket=AT_CLIENT, descriptor=4, requested=8192)
    trace.trace.frozen_at = 5 * SECOND_NS
    trace.trace.freeze()
    return list(RULES["not-read"](TraceIndex(trace.trace)))


def test_a_second_accept_of_the_same_thread() -> None:
    (finding,) = found()
    assert "second connection" in finding.title
    assert "10 bytes" in finding.text


@pytest.mark.parametrize("change", [{"earlier": True}, {"reads": True}, {"thread": 109}])
def test_of_several_connections_the_first_is_not_named(change: dict[str, bool | int]) -> None:
    assert all("second connection" not in finding.title for finding in found(**change))  # type: ignore[arg-type]
