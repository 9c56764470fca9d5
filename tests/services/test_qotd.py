from __future__ import annotations

from bothends.services.qotd import LONGEST, QUOTES, Qotd
from tests.services.scripted import PEER, talk


def quote_at(seconds: float) -> bytes | None:
    return Qotd(now=lambda: seconds).answer(b"", PEER)


def test_every_quote_keeps_to_the_rfc() -> None:
    for quote in QUOTES:
        assert quote.isascii()
        assert quote.isprintable()
        assert len(quote) + len("\r\n") <= LONGEST


def test_the_same_all_day_and_another_the_next() -> None:
    midnight = 20_000 * 86_400.0
    assert quote_at(midnight) == quote_at(midnight + 86_399.9)
    days = {quote_at(day * 86_400.0) for day in range(len(QUOTES))}
    assert days == {f"{quote}\r\n".encode() for quote in QUOTES}


def test_said_once() -> None:
    said = talk(Qotd(now=lambda: 0.0), [b"never read"])
    assert said.done
    assert said.turns == [f"{QUOTES[0]}\r\n".encode()]
