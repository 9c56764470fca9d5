"""A text that is taken for a length: by what a reader asks for after it."""

from __future__ import annotations

import pytest

from bothends.trace.findings.base import TraceIndex
from bothends.trace.findings.registry import RULES
from tests.trace.test_waits import AT_CLIENT, AT_SERVER, WaitingTrace


@pytest.mark.parametrize(("received", "asked", "is_found"), [(60, 8195, True), (63, 8192, False)])
def test_read_of_a_whole_buffer_is_not_the_rest_of_a_length(
    received: int, asked: int, is_found: bool
) -> None:
    """The first two bytes, "= ", are 8,253 as a binary length; 8,192 is the size of a buffer."""
    text = b"= JOB 0\n".ljust(received - 1, b".") + b"\n"
    trace = WaitingTrace()
    trace.call(1, "sendto", 0.1, 0.2, socket=AT_SERVER, size=received, requested=received, data=text)
    trace.call(2, "recvfrom", 0.1, 0.3, socket=AT_CLIENT, size=received, requested=8192, data=text)
    trace.call(2, "recvfrom", 0.4, socket=AT_CLIENT, requested=asked)
    trace.trace.freeze()
    assert any(RULES["text-as-length"](TraceIndex(trace.trace))) is is_found
