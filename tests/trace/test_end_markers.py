"""Markers at the end of data: on traces made by hand."""

from __future__ import annotations

import pytest

from bothends.trace.findings.base import TraceIndex
from bothends.trace.findings.end_markers import marker_joined
from tests.trace.test_waits import AT_CLIENT, AT_SERVER, SECOND_NS, WaitingTrace


@pytest.mark.parametrize(
    ("marker", "alone", "is_found"),
    [
        (b"DONE", False, True),
        (b"<END_OF_FILE>", False, True),
        (b"--eof--\n", False, True),
        (b"DONE", True, False),
        (b"the last line\n", False, False),
    ],
)
def test_marker_that_no_read_returned_alone_is_named(marker: bytes, alone: bool, is_found: bool) -> None:
    trace = WaitingTrace()
    data = b"x" * 1000
    for part in data, marker:
        trace.call(2, "sendto", 0.1, 0.2, socket=AT_CLIENT, size=len(part), requested=len(part), data=part)
    for part in (data, marker) if alone else (data + marker,):
        trace.call(1, "recvfrom", 0.3, 0.4, socket=AT_SERVER, size=len(part), requested=4096, data=part)
    trace.call(1, "recvfrom", 0.5, socket=AT_SERVER, requested=4096)
    trace.call(2, "recvfrom", 0.5, socket=AT_CLIENT, requested=100)
    trace.trace.frozen_at = 6 * SECOND_NS
    trace.trace.freeze()
    found = list(marker_joined(TraceIndex(trace.trace)))
    assert bool(found) is is_found
    assert not found or "together with the 1,000 bytes before it" in found[0].text
