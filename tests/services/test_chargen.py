from __future__ import annotations

from random import Random

from bothends.services.base import nowhere
from bothends.services.chargen import LONGEST_DATAGRAM, Chargen
from tests.services.scripted import PEER


def test_the_pattern_of_the_rfc_goes_on_over_every_piece() -> None:
    conversation = Chargen().open(PEER, nowhere)
    said = conversation.start() + conversation.more() + conversation.more()
    lines = said.split(b"\r\n")
    assert lines.pop() == b""
    # The first and third lines as RFC 864 prints them.
    assert lines[0] == rb""" !"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdefg"""
    assert lines[2].startswith(b'"#$%&')
    assert lines[2].endswith(b"ghi")
    for number, line in enumerate(lines):
        assert len(line) == 72
        assert line[0] == 0x20 + number % 95


def test_what_is_sent_is_thrown_away_and_eof_ends_it() -> None:
    conversation = Chargen().open(PEER, nowhere)
    conversation.start()
    assert conversation.receive(b"stop") == b""
    assert conversation.more()
    assert conversation.end() == b""
    assert conversation.done
    assert conversation.more() == b""


def test_a_datagram_is_answered_with_a_random_length() -> None:
    service = Chargen(Random(1))
    answers = [service.answer(b"any", PEER) for _ in range(20_000)]
    sizes = {len(answer) for answer in answers}
    assert (min(sizes), max(sizes)) == (0, LONGEST_DATAGRAM)
    longest = max(answers, key=len)
    assert all(longest.startswith(answer) for answer in answers)
    again = Chargen(Random(1))
    assert [again.answer(b"", PEER) for _ in range(100)] == answers[:100]
