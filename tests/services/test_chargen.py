from __future__ import annotations

from random import Random

from bothends.services.base import discard_push
from bothends.services.chargen import MAX_DATAGRAM, Chargen
from tests.services.scripted import PEER


def test_rfc_pattern_continues_across_blocks() -> None:
    conversation = Chargen().open(PEER, discard_push)
    output = conversation.start() + conversation.produce() + conversation.produce()
    lines = output.split(b"\r\n")
    assert lines.pop() == b""
    # The first and third lines as RFC 864 prints them.
    assert lines[0] == rb""" !"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdefg"""
    assert lines[2].startswith(b'"#$%&')
    assert lines[2].endswith(b"ghi")
    for number, line in enumerate(lines):
        assert len(line) == 72
        assert line[0] == 0x20 + number % 95


def test_input_is_discarded_and_eof_ends() -> None:
    conversation = Chargen().open(PEER, discard_push)
    conversation.start()
    assert conversation.receive(b"stop") == b""
    assert conversation.produce()
    assert conversation.end() == b""
    assert conversation.done
    assert conversation.produce() == b""


def test_datagram_answer_has_random_length() -> None:
    service = Chargen(Random(1))
    answers = [service.answer(b"any", PEER) for _ in range(20_000)]
    sizes = {len(answer) for answer in answers}
    assert (min(sizes), max(sizes)) == (0, MAX_DATAGRAM)
    longest = max(answers, key=len)
    assert all(longest.startswith(answer) for answer in answers)
    same_seed = Chargen(Random(1))
    assert [same_seed.answer(b"", PEER) for _ in range(100)] == answers[:100]
