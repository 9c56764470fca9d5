"""Messages of no bytes: on traces made by hand."""

from __future__ import annotations

import pytest

from bothends.trace.findings.base import TraceIndex
from bothends.trace.findings.empty_sends import empty_send
from tests.trace.test_waits import AT_CLIENT, AT_SERVER, SECOND_NS, WaitingTrace, hello


@pytest.mark.parametrize(("has_header", "is_found"), [(False, True), (True, False)])
def test_empty_answer_is_named_unless_a_header_announces_it(has_header: bool, is_found: bool) -> None:
    trace = WaitingTrace()
    hello(trace)
    if has_header:
        trace.call(1, "sendto", 0.35, 0.4, socket=AT_SERVER, descriptor=4, size=4, requested=4)
        trace.call(2, "recvfrom", 0.35, 0.4, socket=AT_CLIENT, descriptor=3, size=4, requested=10)
    trace.call(1, "sendto", 0.45, 0.5, socket=AT_SERVER, descriptor=4, size=0, requested=0)
    trace.call(1, "recvfrom", 0.6, socket=AT_SERVER, descriptor=4, requested=100)
    trace.call(2, "recvfrom", 0.6, socket=AT_CLIENT, descriptor=3, requested=10)
    trace.trace.frozen_at = 6 * SECOND_NS
    trace.trace.freeze()
    found = list(empty_send(TraceIndex(trace.trace)))
    assert bool(found) is is_found
    assert not found or found[0].title.startswith("The server sent an answer of no bytes")
