"""What came byte by byte is told as one; what didn't, as it came."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bothends.endpoints import Address
from bothends.events import Cause, Closed, Event, Received, Sent
from bothends.log.coalesce import Pieces

PEER = Address("inet", "192.0.2.1", 5000)


class Told:
    """What was told, and the hands of the clock."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._due: list[Callable[[], None]] = []
        self.pieces = Pieces(self.events.append, later=self._later)

    def _later(self, seconds: float, call: Callable[[], None]) -> Callable[[], object]:
        self._due.append(call)

        def call_off() -> None:
            if call in self._due:
                self._due.remove(call)

        return call_off

    def let_time_pass(self) -> None:
        for call in list(self._due):
            call()

    @property
    def data(self) -> list[bytes]:
        return [event.data for event in self.events if isinstance(event, Received)]

    @property
    def is_waiting(self) -> bool:
        return bool(self._due)


def received(*pieces: bytes, connection: int = 1) -> list[Event]:
    return [Received(connection, PEER, piece) for piece in pieces]


@pytest.mark.parametrize(
    ("pieces", "told"),
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
def test_lines_are_put_together_and_messages_left_alone(pieces: list[bytes], told: list[bytes]) -> None:
    log = Told()
    for event in received(*pieces):
        log.pieces(event)
    assert log.data == told
    assert not log.is_waiting


def test_who_never_sends_a_newline_is_told_all_the_same() -> None:
    log = Told()
    for event in received(b"h", b"i"):
        log.pieces(event)
    assert log.data == []
    log.let_time_pass()
    assert log.data == [b"hi"]
    log.let_time_pass()
    assert log.data == [b"hi"]


def test_what_else_happens_comes_after_what_was_said() -> None:
    log = Told()
    for event in received(b"h", b"i"):
        log.pieces(event)
    log.pieces(Sent(1, PEER, b"H"))
    log.pieces(Closed(1, PEER, Cause.PEER, 2, 2))
    assert [type(event).__name__ for event in log.events] == ["Sent", "Received", "Closed"]
    assert not log.is_waiting


def test_two_who_speak_at_once_are_kept_apart_and_datagrams_let_through() -> None:
    log = Told()
    for one, two in zip(received(b"a", b"b", b"\n"), received(b"1", b"2", b"\n", connection=2), strict=True):
        log.pieces(one)
        log.pieces(two)
    log.pieces(Received(0, PEER, b"d"))
    assert log.data == [b"ab\n", b"12\n", b"d"]


def test_what_is_held_back_is_bounded() -> None:
    log = Told()
    for event in received(*[b"x"] * 5000):
        log.pieces(event)
    assert max(len(data) for data in log.data) <= 1024 + 3
