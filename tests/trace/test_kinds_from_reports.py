"""Kinds of mistakes that reports name often: the rules on traces made by hand."""

from __future__ import annotations

import base64
import hashlib
import signal

import pytest

from bothends.trace.findings.base import TraceIndex
from bothends.trace.findings.collected_clients import waits_for_more_clients
from bothends.trace.findings.pointers import pointer_sent
from bothends.trace.findings.websocket_handshakes import websocket_accept
from bothends.trace.model import CausalLink, Point, ProcessEvent
from tests.trace.test_waits import AT_CLIENT, AT_SERVER, LISTENER, SECOND_NS, WaitingTrace

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455, section 1.3
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@pytest.mark.parametrize(
    ("accept", "words"),
    [
        (b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", None),  # of RFC 6455, section 1.3
        (base64.b64encode(hashlib.sha1(KEY + GUID).hexdigest().encode()), "digits in hexadecimal"),
        (base64.b64encode(hashlib.sha1(KEY).digest()), "The GUID is missing"),
        (b"", "it must be"),
    ],
)
def test_websocket_accept_is_compared_with_the_key(accept: bytes, words: str | None) -> None:
    request = b"GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"
    response = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    trace = WaitingTrace()
    trace.call(2, "sendto", 0.1, 0.2, socket=AT_CLIENT, size=len(request), data=request)
    trace.call(1, "recvfrom", 0.1, 0.3, socket=AT_SERVER, size=len(request), data=request)
    trace.call(1, "sendto", 0.4, 0.5, socket=AT_SERVER, size=len(response), data=response)
    trace.call(2, "recvfrom", 0.4, 0.6, socket=AT_CLIENT, size=len(response), data=response)
    trace.trace.freeze()
    found = list(websocket_accept(TraceIndex(trace.trace)))
    assert [words in each.text for each in found if words] == ([True] if words else [])
    assert len(found) == (words is not None)


@pytest.mark.parametrize("has_other_thread", [False, True])
def test_server_whose_only_thread_accepts_collects_clients(has_other_thread: bool) -> None:
    trace = WaitingTrace()
    trace.call(2, "connect", 0.05, 0.1, socket=AT_CLIENT, descriptor=3)
    trace.call(1, "accept", 0.1, 0.2, socket=LISTENER, descriptor=3, created_id=AT_SERVER)
    trace.call(1, "accept", 0.3, socket=LISTENER, descriptor=3)
    trace.call(2, "recvfrom", 0.3, socket=AT_CLIENT, descriptor=3, requested=10)
    if has_other_thread:
        trace.blocked(1, "futex", 0.3).thread = 999
    trace.trace.frozen_at = 6 * SECOND_NS
    trace.trace.freeze()
    assert any(waits_for_more_clients(TraceIndex(trace.trace))) is not has_other_thread


@pytest.mark.parametrize(
    ("word", "status", "is_found"),
    [
        ("a032b40428560000", -signal.SIGSEGV, True),
        ("a032b40428560000", 1, False),
        ("2a00000000000000", -signal.SIGSEGV, False),
        ("68656c6c6f550000", -signal.SIGSEGV, False),  # "helloU"
    ],
)
def test_address_that_kills_its_reader_is_a_pointer(word: str, status: int, is_found: bool) -> None:
    data = bytes(8) + bytes.fromhex(word)
    trace = WaitingTrace()
    trace.trace.processes[2].command = '["./client"]'
    send = trace.call(2, "sendto", 0.1, 0.2, socket=AT_CLIENT, size=16, data=data)
    read = trace.call(1, "recvfrom", 0.1, 0.3, socket=AT_SERVER, size=16, data=data)
    trace.trace.link(CausalLink(send.number, read.number, "reaches"))
    event = ProcessEvent(
        next(trace.numbers), round(0.31 * SECOND_NS), 1, "ended", f"status {status}", status=status
    )
    trace.trace.add(Point(event))
    trace.trace.freeze()
    assert any(pointer_sent(TraceIndex(trace.trace))) is is_found
