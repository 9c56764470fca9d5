from __future__ import annotations

from bothends.services.qotd import MAX_QUOTE, QUOTES, Qotd
from tests.services.scripted import PEER, run_conversation


def quote_at(seconds: float) -> bytes | None:
    return Qotd(now=lambda: seconds).answer(b"", PEER)


def test_quotes_conform_to_rfc() -> None:
    for quote in QUOTES:
        assert quote.isascii()
        assert quote.isprintable()
        assert len(quote) + len("\r\n") <= MAX_QUOTE


def test_quote_changes_daily() -> None:
    midnight = 20_000 * 86_400.0
    assert quote_at(midnight) == quote_at(midnight + 86_399.9)
    days = {quote_at(day * 86_400.0) for day in range(len(QUOTES))}
    assert days == {f"{quote}\r\n".encode() for quote in QUOTES}


def test_sent_once() -> None:
    answer = run_conversation(Qotd(now=lambda: 0.0), [b"never read"])
    assert answer.done
    assert answer.turns == [f"{QUOTES[0]}\r\n".encode()]
