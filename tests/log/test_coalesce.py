"""Fragments of a line are logged as one message; other reads pass unchanged."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bothends.endpoints import Address
from bothends.events import Closed, CloseReason, Event, Received, Sent
from bothends.log.coalesce import LineCoalescer

PEER = Address("inet", "192.0.2.1", 5000)


class CoalescerHarness:
    """A coalescer whose events are recorded, and whose timers a test fires."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._scheduled: list[Callable[[], None]] = []
        self.coalescer = LineCoalescer(self.events.append, schedule=self._schedule)

    def _schedule(self, seconds: float, call: Callable[[], None]) -> Callable[[], object]:
        self._scheduled.append(call)

        def cancel() -> None:
            if call in self._scheduled:
                self._scheduled.remove(call)

        return cancel

    def fire_timers(self) -> None:
        for call in list(self._scheduled):
            call()

    @property
    def data(self) -> list[bytes]:
        return [event.data for event in self.events if isinstance(event, Received)]

    @property
    def has_timers(self) -> bool:
        return bool(self._scheduled)


def received(*reads: bytes, connection: int = 1) -> list[Event]:
    return [Received(connection, PEER, data) for data in reads]


@pytest.mark.parametrize(
    ("reads", "logged"),
    [
        ([b"hello\n"], [b"hello\n"]),
        ([b"hello"], [b"hello"]),
        ([b"h", b"e", b"l", b"l", b"o", b"\n"], [b"hello\n"]),
        ([b"h", b"ello\n"], [b"hello\n"]),
        ([b"h", b"i\n", b"o", b"\n"], [b"hi\n", b"o\n"]),
        ([b"x" * 100, b"y" * 100], [b"x" * 100, b"y" * 100]),
        ([b"\n"], [b"\n"]),
    ],
)
def test_fragments_are_coalesced_and_messages_pass(reads: list[bytes], logged: list[bytes]) -> None:
    log = CoalescerHarness()
    for event in received(*reads):
        log.coalescer(event)
    assert log.data == logged
    assert not log.has_timers


def test_partial_line_is_flushed_by_timer() -> None:
    log = CoalescerHarness()
    for event in received(b"h", b"i"):
        log.coalescer(event)
    assert log.data == []
    log.fire_timers()
    assert log.data == [b"hi"]
    log.fire_timers()
    assert log.data == [b"hi"]


def test_other_event_flushes_partial_line() -> None:
    log = CoalescerHarness()
    for event in received(b"h", b"i"):
        log.coalescer(event)
    log.coalescer(Sent(1, PEER, b"H"))
    log.coalescer(Closed(1, PEER, CloseReason.PEER, 2, 2))
    assert [type(event).__name__ for event in log.events] == ["Sent", "Received", "Closed"]
    assert not log.has_timers


def test_connections_are_coalesced_separately() -> None:
    log = CoalescerHarness()
    for first, second in zip(
        received(b"a", b"b", b"\n"), received(b"1", b"2", b"\n", connection=2), strict=True
    ):
        log.coalescer(first)
        log.coalescer(second)
    log.coalescer(Received(0, PEER, b"d"))
    assert log.data == [b"ab\n", b"12\n", b"d"]


def test_held_data_is_bounded() -> None:
    log = CoalescerHarness()
    for event in received(*[b"x"] * 5000):
        log.coalescer(event)
    assert max(len(data) for data in log.data) <= 1024 + 3
