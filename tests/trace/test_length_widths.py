"""A length that the reader takes for a wider or a narrower one."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.registry import RULES
from tests.trace.test_waits import AT_CLIENT, AT_SERVER, SECOND_NS, WaitingTrace


def found(sent: bytes, header: int, asked: int) -> list[Finding]:
    """The client sends, the server reads a header and asks for so much; then both wait."""
    trace = WaitingTrace()
    trace.call(2, "sendto", 0.1, 0.2, socket=AT_CLIENT, size=len(sent), data=sent, requested=len(sent))
    trace.call(1, "read", 0.2, 0.3, socket=AT_SERVER, size=header, data=sent[:header], requested=header)
    body = sent[header : header + asked]
    rest: dict[str, Any] = {"size": len(body), "data": body, "requested": asked}
    trace.call(1, "read", 0.3, 0.4, socket=AT_SERVER, **rest)
    trace.call(1, "read", 0.5, socket=AT_SERVER, requested=asked - len(body) or header)
    trace.call(2, "recvfrom", 0.5, socket=AT_CLIENT, requested=100)
    trace.trace.frozen_at = 5 * SECOND_NS
    trace.trace.freeze()
    return list(RULES["length-width"](TraceIndex(trace.trace)))


@pytest.mark.parametrize(
    ("sent", "header", "asked", "words"),
    [
        (b"\x1c" + b"temperature=21.5;humidity=40", 4, 131072, "28 in 1 byte (1c)"),
        (b"\x00\x05hello", 4, 0x00056865, "5 in 2 bytes (00 05)"),
        (b"\x05\x00hello", 4, 0x6568_0005, "5 in 2 bytes (05 00)"),
        (b"\x00\x00\x00\x05hello", 8, 131072, "5 in 4 bytes (00 00 00 05)"),
    ],
)
def test_a_wider_length_is_read(sent: bytes, header: int, asked: int, words: str) -> None:
    (finding,) = found(sent, header, asked)
    assert words in finding.text


def test_a_narrower_length_is_read() -> None:
    """The first half of a size_t is its value: the message seems right, and the zeros are its beginning."""
    (finding,) = found(struct.pack("<Q", 11) + b"hello world", 4, 11)
    assert "11 in 8 bytes" in finding.text
    assert "the other 4 for the beginning of the message, its last bytes for the next length" in finding.text


@pytest.mark.parametrize(
    ("sent", "header", "asked"),
    [
        (struct.pack("<Q", 11) + b"hello world", 8, 11),
        (b"\x00\x05hello", 2, 8192),  # the same width
        (b"\x00\x06hello", 4, 131072),  # no length
        (b"\x00\x00\x00\x05hello", 4, 131072),
        (b"\x1c" + b"temperature=21.5;humidity=40", 4, 4096),  # what it asks for is no length
    ],
)
def test_other_reads_are_no_finding(sent: bytes, header: int, asked: int) -> None:
    assert not found(sent, header, asked)
