"""TLS handshakes that end with an alert: on traces made by hand."""

from __future__ import annotations

import pytest

from bothends.trace.findings.base import TraceIndex
from bothends.trace.findings.tls_handshakes import tls_handshake_failed
from tests.trace.test_waits import AT_CLIENT, AT_SERVER, WaitingTrace

CLIENT_HELLO = bytes.fromhex("16030100050100000100")


def texts_after(alert: bytes, *, is_from_server: bool) -> list[str]:
    trace = WaitingTrace()
    sender, receiver = ((1, AT_SERVER), (2, AT_CLIENT))[:: 1 if is_from_server else -1]
    size = len(CLIENT_HELLO)
    trace.call(2, "sendto", 0.1, 0.2, socket=AT_CLIENT, size=size, data=CLIENT_HELLO)
    trace.call(1, "recvfrom", 0.1, 0.2, socket=AT_SERVER, size=size, data=CLIENT_HELLO)
    trace.call(sender[0], "sendto", 0.3, 0.4, socket=sender[1], size=len(alert), data=alert)
    trace.call(receiver[0], "recvfrom", 0.3, 0.4, socket=receiver[1], size=len(alert), data=alert)
    trace.trace.freeze()
    return [f"{each.title}. {each.text}" for each in tls_handshake_failed(TraceIndex(trace.trace))]


@pytest.mark.parametrize(
    ("number", "is_from_server", "words"),
    [
        (48, False, "The client does not trust the certificate of the server. "),
        (42, False, "The client rejected the certificate of the server. "),
        (70, True, "the server accepts none that the client offers"),
        (116, True, "The server demands a certificate of the client, which sent none"),
    ],
)
def test_fatal_alert_is_named_with_its_sender(number: int, is_from_server: bool, words: str) -> None:
    (text,) = texts_after(bytes([21, 3, 3, 0, 2, 2, number]), is_from_server=is_from_server)
    assert words in text


@pytest.mark.parametrize(
    "alert", ["15030300020100", "15030300020200", "17030300021548"], ids=["warning", "close_notify", "data"]
)
def test_other_records_are_no_rejection(alert: str) -> None:
    assert not texts_after(bytes.fromhex(alert), is_from_server=False)
