"""Text in UTF-16, at a reader that takes each byte for a character."""

from __future__ import annotations

import pytest

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.registry import RULES
from tests.trace.test_once_each import send
from tests.trace.test_waits import AT_CLIENT, AT_SERVER, SECOND_NS, WaitingTrace


def found(text: bytes, answer: bytes, *, waits: bool = True) -> list[Finding]:
    """The client sends, the server reads, answers if there is something to send, and both wait."""
    trace = WaitingTrace()
    send(trace, 2, 0.1, text)
    if answer:
        send(trace, 1, 0.3, answer)
    if waits:
        trace.call(1, "read", 0.5, socket=AT_SERVER, requested=8192, descriptor=4)
        trace.call(2, "read", 0.5, socket=AT_CLIENT, requested=8192, descriptor=3)
    trace.trace.frozen_at = 5 * SECOND_NS
    trace.trace.freeze()
    return list(RULES["text-in-utf-16"](TraceIndex(trace.trace)))


@pytest.mark.parametrize(
    ("text", "answer", "words"),
    [
        ("TIME\n".encode("utf-16-be"), b"", "sent nothing, and the client waits in read(3, 8192)"),
        ("TIME\n".encode("utf-16-le"), b"", "sent nothing"),
        ("TIME\n".encode("utf-16-be"), b"ERR unknown command\n", 'answered "ERR unknown command'),
    ],
)
def test_text_with_nuls(text: bytes, answer: bytes, words: str) -> None:
    (finding,) = found(text, answer)
    assert words in finding.text


@pytest.mark.parametrize(
    ("text", "answer", "waits"),
    [
        (b"TIME\n\0", b"", True),
        ("TIME\n".encode("utf-16-be"), b"noon\n", True),  # understood
        ("TIME\n".encode("utf-16-be"), "error\n".encode("utf-16-be"), True),  # both use UTF-16
        ("TIME\n".encode("utf-16-be"), b"", False),
        (b"\0\1\0\2\0\3\0\4", b"", True),  # numbers
    ],
)
def test_text_that_is_understood_or_none(text: bytes, answer: bytes, waits: bool) -> None:
    assert not found(text, answer, waits=waits)
