"""Lengths of different widths at the two ends: on traces made by hand."""

from __future__ import annotations

import pytest

from bothends.trace.findings.base import TraceIndex
from bothends.trace.findings.length_widths import length_width
from tests.trace.test_waits import AT_CLIENT, AT_SERVER, SECOND_NS, WaitingTrace


@pytest.mark.parametrize(
    ("prefix", "read", "asked", "is_found"),
    [
        ("0b00000000000000", 4, 11, True),
        ("0b00000000000000", 8, 11, False),
        ("0b000000", 8, 7, False),  # the rest of the message: the header has a type, too
        ("0b000000", 8, 0x6C6C65680000000B, True),
        ("0b000000", 4, 11, False),
    ],
)
def test_length_read_with_another_width_is_named(prefix: str, read: int, asked: int, is_found: bool) -> None:
    sent = bytes.fromhex(prefix) + b"hello world"
    trace = WaitingTrace()
    trace.call(2, "sendto", 0.1, 0.2, socket=AT_CLIENT, size=len(sent), requested=len(sent), data=sent)
    trace.call(1, "recvfrom", 0.1, 0.3, socket=AT_SERVER, size=read, requested=read, data=sent[:read])
    body = sent[read : read + asked]
    trace.call(1, "recvfrom", 0.4, 0.5, socket=AT_SERVER, size=len(body), requested=asked, data=body)
    trace.call(1, "recvfrom", 0.6, socket=AT_SERVER, requested=read)
    trace.trace.frozen_at = 6 * SECOND_NS
    trace.trace.freeze()
    found = list(length_width(TraceIndex(trace.trace)))
    assert bool(found) is is_found
    assert not found or f"reads {read} bytes for it" in found[0].text
