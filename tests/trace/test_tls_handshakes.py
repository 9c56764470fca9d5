"""TLS handshakes that one end breaks off, by the records of both directions."""

from __future__ import annotations

from typing import Any

import pytest

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.registry import RULES
from bothends.trace.model import Socket
from tests.trace.test_waits import AT_CLIENT, AT_SERVER, CLIENT, LISTENER, SERVER, WaitingTrace


def record(kind: int, contents: bytes) -> bytes:
    return bytes([kind, 3, 3]) + len(contents).to_bytes(2, "big") + contents


def alert(number: int) -> bytes:
    return record(21, bytes([2, number]))


HELLO = record(22, b"\1" + bytes(200))
SERVER_HELLO = record(22, b"\2" + bytes(120)) + record(20, b"\1")
CERTIFICATE = record(23, bytes(65)) + record(23, bytes(700)) + record(23, bytes(53))
CERTIFICATE_IN_1_2 = record(22, b"\2" + bytes(80)) + record(22, b"\x0b" + bytes(700)) + record(22, b"\x0e")
FINISHED = record(20, b"\1") + record(23, bytes(53))


def handshake(
    trace: WaitingTrace,
    answer: bytes,
    then: bytes,
    ends: tuple[int, int] = (AT_CLIENT, AT_SERVER),
    at: float = 0,
) -> None:
    """The client says hello, the server answers, the client sends what is left to say and closes."""
    client, server = ends
    for sender, start, data in ((2, 0.1, HELLO), (1, 0.3, answer), (2, 0.5, then)):
        source, sink = (client, server) if sender == 2 else (server, client)
        if data:
            moved: dict[str, Any] = {"size": len(data), "data": data, "requested": len(data)}
            trace.call(sender, "write", at + start, at + start + 0.01, socket=source, **moved)
            trace.call(3 - sender, "read", at + start + 0.02, at + start + 0.03, socket=sink, **moved)
    trace.call(2, "close", at + 0.6, at + 0.61, socket=client)


def found(trace: WaitingTrace) -> list[Finding]:
    trace.trace.freeze()
    return list(RULES["tls-handshake-failed"](TraceIndex(trace.trace)))


@pytest.mark.parametrize(
    ("answer", "then", "title", "words"),
    [
        (
            SERVER_HELLO + CERTIFICATE,
            alert(48),
            "does not trust the certificate",
            "unknown_ca: no CA that the client trusts",
        ),
        (CERTIFICATE_IN_1_2, alert(46), "rejected the certificate", "certificate_unknown"),
        (SERVER_HELLO + CERTIFICATE, b"", "probably does not accept", "without an alert"),
        (SERVER_HELLO + CERTIFICATE, record(23, bytes(35)), "probably does not accept", "probably an alert"),
        (alert(40), b"", "no common parameters", "handshake_failure: usually they share no cipher"),
        (alert(70), b"", "share no version", "protocol_version"),
        (SERVER_HELLO, alert(47), "The client broke", "illegal_parameter"),
        (SERVER_HELLO + record(23, bytes(65)) + record(23, bytes(35)), b"", "The server refused", "no cert"),
    ],
)
def test_a_handshake_that_was_broken_off(answer: bytes, then: bytes, title: str, words: str) -> None:
    trace = WaitingTrace()
    handshake(trace, answer, then)
    (finding,) = found(trace)
    assert title in finding.title
    assert words in finding.text
    assert (finding.certainty == "inferred") is ("probably" in finding.text.lower())


@pytest.mark.parametrize(
    ("answer", "then"),
    [
        (SERVER_HELLO + CERTIFICATE, FINISHED),
        (SERVER_HELLO + CERTIFICATE, FINISHED + record(23, bytes(19))),
        (SERVER_HELLO + record(23, bytes(65)) + record(23, bytes(53)), FINISHED),  # resumed, no certificate
        (CERTIFICATE_IN_1_2, record(22, bytes(60)) + alert(0)),
        (b"220 hello\r\n", b""),
        (SERVER_HELLO + CERTIFICATE, alert(90)),
    ],
)
def test_a_handshake_that_went_on(answer: bytes, then: bytes) -> None:
    trace = WaitingTrace()
    handshake(trace, answer, then)
    assert not found(trace)


@pytest.mark.parametrize(
    ("certificate", "answer", "is_found"),
    [
        (bytes(25), record(23, bytes(19)), True),
        (bytes(25), record(23, bytes(239)) + record(23, bytes(19)), False),  # a ticket: the session is on
        (bytes(700), record(23, bytes(19)), False),  # the client has one
    ],
)
def test_a_client_without_a_certificate_of_its_own(certificate: bytes, answer: bytes, is_found: bool) -> None:
    trace = WaitingTrace()
    handshake(trace, SERVER_HELLO + CERTIFICATE, record(23, certificate) + FINISHED)
    size = len(answer)
    trace.call(1, "write", 0.54, 0.55, socket=AT_SERVER, size=size, data=answer, requested=size)
    trace.call(2, "read", 0.56, 0.57, socket=AT_CLIENT, size=size, data=answer, requested=65536)
    findings = found(trace)
    assert ["sent no certificate of its own" in finding.text for finding in findings] == [True] * is_found


def test_a_second_try_that_succeeds_excuses_the_first() -> None:
    trace = WaitingTrace()
    again, accepted = 5, 6
    trace.socket(Socket(again, "inet", "stream", 0, CLIENT._replace(port=40009), SERVER), 2)
    trace.socket(
        Socket(accepted, "inet", "stream", 0, SERVER, CLIENT._replace(port=40009), accepted_from=LISTENER), 1
    )
    handshake(trace, SERVER_HELLO + CERTIFICATE, alert(48))
    handshake(trace, SERVER_HELLO + CERTIFICATE, FINISHED, (again, accepted), 1)
    assert not found(trace)
