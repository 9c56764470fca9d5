"""The records of TLS that are seen from outside."""

from __future__ import annotations

from bothends.trace.model import Call
from bothends.trace.protocols.tls_records import alert_text, is_client_hello, is_record, last_record

HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(10)
CLOSE_NOTIFY = bytes.fromhex("1703030013") + bytes(19)
DATA = bytes.fromhex("170303001a") + bytes(26)


def received(*pieces: bytes, kept: int = 4096) -> list[Call]:
    return [
        Call(number, 1, 1, "read", number, number, size=len(piece), data=piece[:kept])
        for number, piece in enumerate(pieces, 1)
    ]


def test_client_hello_text_and_other_records_are_not_one() -> None:
    assert is_client_hello(HELLO)
    assert not is_client_hello(HELLO[:5])
    assert not is_client_hello(bytes.fromhex("160303007a02000076"))  # a ServerHello
    assert not is_client_hello(b"GET / HTTP/1.1\r\n")


def test_record_may_be_cut_after_its_first_byte() -> None:
    assert is_record(b"\x16")
    assert not is_record(b"")
    assert not is_record(b"\x16\x01")


def test_alert_is_named() -> None:
    assert alert_text(bytes.fromhex("15030100020246")) == "protocol_version"
    assert alert_text(bytes.fromhex("150301000202ff")) == "number 255"
    assert not alert_text(CLOSE_NOTIFY)
    assert not alert_text(b"HTTP/1.1 400 Bad Request")


def test_last_record_alert_of_tls_1_3_is_recognized_by_its_length() -> None:
    last = last_record(received(DATA, CLOSE_NOTIFY))
    assert last is not None
    assert last.may_be_alert
    assert not last.missing


def test_last_record_is_found_across_reads_of_header_and_contents() -> None:
    last = last_record(received(DATA[:5], DATA[5:], DATA[:2], DATA[2:5], DATA[5:]))
    assert last is not None
    assert (last.type, last.size, last.missing) == (23, 26, 0)
    assert not last.may_be_alert


def test_last_record_counts_missing_bytes() -> None:
    cut = last_record(received(DATA, DATA[:11]))
    assert cut is not None
    assert cut.missing == 20
    header = last_record(received(DATA, DATA[:3]))
    assert header is not None
    assert header.missing == 2


def test_last_record_unknown_header_gives_none() -> None:
    assert last_record(received(DATA + DATA, kept=20)) is None
    assert last_record(received(b"GET / HTTP/1.1\r\n\r\n")) is None
    assert last_record([]) is None
