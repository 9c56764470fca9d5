from __future__ import annotations

from datetime import UTC, timedelta, timezone

from bothends.services.clock import Clock
from tests.services.scripted import MESSAGE_PEER, PEER, run_conversation

AT = b"2026-03-01 14:05:09 +0100"
CLOCK = Clock(now=lambda: 1_772_370_309.7, zone=timezone(timedelta(hours=1)))


def test_any_datagram_is_answered() -> None:
    assert CLOCK.answer(b"", MESSAGE_PEER) == CLOCK.answer(b"what time is it?", MESSAGE_PEER) == AT
    assert run_conversation(CLOCK, [b"?"], MESSAGE_PEER).output == AT


def test_each_line_is_answered() -> None:
    assert run_conversation(CLOCK, [b"wh", b"en\r\nand", b" now?\n\n"]).turns[:4] == [
        b"",
        b"",
        AT + b"\n",
        AT + b"\n" + AT + b"\n",
    ]


def test_clock_is_read_for_each_line() -> None:
    ticks = iter([0.0, 1.0])
    clock = Clock(now=lambda: next(ticks), zone=UTC)
    assert (
        run_conversation(clock, [b"\n\n"]).output == b"1970-01-01 00:00:00 +0000\n1970-01-01 00:00:01 +0000\n"
    )


def test_default_zone_is_local() -> None:
    answer = Clock(now=lambda: 0.0).answer(b"", PEER)
    assert len(answer) == len(AT)
