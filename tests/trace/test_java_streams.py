"""Streams of Java that expect a header, or keep the end of a message."""

from __future__ import annotations

import pytest

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.registry import RULES
from tests.trace.test_waits import AT_CLIENT, AT_SERVER, SECOND_NS, WaitingTrace


def found(trace: WaitingTrace, rule: str) -> list[Finding]:
    trace.trace.freeze()
    return list(RULES[rule](TraceIndex(trace.trace)))


@pytest.mark.parametrize(
    ("command", "data", "reads_on", "is_found"),
    [
        ("java Server", b"start engine\n", False, True),
        ("java Server", b"start engine\n", True, False),
        ("./server", b"start engine\n", False, False),
        ("java Server", b"\xac\xed\x00\x05t\0\1a", False, False),
    ],
)
def test_a_reader_that_expects_an_object_stream(
    command: str, data: bytes, reads_on: bool, is_found: bool
) -> None:
    trace = WaitingTrace()
    trace.trace.processes[1].command = command
    trace.call(2, "write", 0.1, 0.2, socket=AT_CLIENT, size=len(data), data=data, requested=len(data))
    for at, piece in ((0.3, data[:2]), (0.4, data[2:4])):
        trace.call(1, "read", at, at + 0.01, socket=AT_SERVER, size=2, data=piece, requested=2)
    if reads_on:
        rest = len(data) - 4
        trace.call(1, "read", 0.5, 0.51, socket=AT_SERVER, size=rest, data=data[4:], requested=rest)
    trace.call(1, "close", 0.6, 0.61, socket=AT_SERVER)
    assert bool(found(trace, "object-stream-expected")) is is_found


@pytest.mark.parametrize(
    ("command", "data", "asked", "is_found"),
    [
        ("java Server", bytes(range(128, 144)), 512, True),
        ("java Server", bytes(range(128, 152)), 512, True),  # 24 bytes: three blocks of DES
        ("java Server", bytes(range(128, 145)), 512, False),
        ("java Server", bytes(range(128, 144)), 8192, False),
        ("java Server", b"0123456789abcdef", 512, False),
        ("java Server", b"\x1f\x8b" + bytes(14), 512, False),
        ("./server", bytes(range(128, 144)), 512, False),
    ],
)
def test_a_cipher_that_keeps_the_last_block(command: str, data: bytes, asked: int, is_found: bool) -> None:
    trace = WaitingTrace()
    trace.trace.processes[1].command = command
    size = len(data)
    trace.call(2, "write", 0.1, 0.2, socket=AT_CLIENT, size=size, data=data, requested=size)
    trace.call(1, "read", 0.2, 0.3, socket=AT_SERVER, size=size, data=data, requested=asked)
    trace.call(1, "read", 0.4, socket=AT_SERVER, requested=asked)
    trace.call(2, "read", 0.4, socket=AT_CLIENT, requested=8192)
    trace.trace.frozen_at = 5 * SECOND_NS
    assert any("cipher" in finding.title for finding in found(trace, "unflushed")) is is_found


@pytest.mark.parametrize(
    ("command", "data", "is_found"),
    [
        ("node server.js", b"\xac\xed\x00\x05t\0\5hello", True),
        ("java Server", b"\xac\xed\x00\x05t\0\5hello", False),
        ("node server.js", b"hello", False),
    ],
)
def test_an_object_stream_at_a_reader_of_something_else(command: str, data: bytes, is_found: bool) -> None:
    trace = WaitingTrace()
    trace.trace.processes[1].command = command
    size = len(data)
    trace.call(2, "write", 0.1, 0.2, socket=AT_CLIENT, size=size, data=data, requested=size)
    trace.call(1, "read", 0.2, 0.3, socket=AT_SERVER, size=size, data=data, requested=65536)
    trace.call(1, "epoll_wait", 0.4, sockets=(AT_SERVER,))
    trace.call(2, "read", 0.4, socket=AT_CLIENT, requested=8192)
    trace.trace.frozen_at = 5 * SECOND_NS
    assert bool(found(trace, "object-stream-expected")) is is_found


def test_an_object_that_is_not_serializable_is_named() -> None:
    trace = WaitingTrace()
    for at, data in (
        (0.1, b"\xac\xed\x00\x05"),
        (0.2, b"{sr\x00\x20java.io.NotSerializableException"),
        (0.3, b"L\x00\x05namet\x00\x12Ljava/lang/String;xpt\x00\x0eClient$Addressur\x00"),
    ):
        trace.call(2, "write", at, at + 0.01, socket=AT_CLIENT, size=len(data), data=data)
    (finding,) = found(trace, "object-not-serializable")
    assert 'of the class "Client$Address", is not' in finding.text
