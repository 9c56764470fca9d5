from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.services.upper import Upper
from tests.services.scripted import PEER, WHOLE, cut_anywhere, cuts, single, talk

# Everything between valid and hostile: whole characters of each length, their pieces, overlong forms,
# surrogates, what lies beyond Unicode, padding.
PIECES = [
    b"hello\n",
    b"\0" * 12,
    *(text.encode() for text in ("é", "ß", "ŉ", "ﬁ", "Ω\u0308ς", "\U00010428", "i\u0307\u0345")),
    *(b"\xc3", b"\xa9", b"\xe2\x82", b"\xf0\x90", b"\xf0\x90\x90"),
    *(b"\xc0\xaf", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xed\xa0", b"\xed", b"\xf4\x90\x80\x80", b"\xf5"),
]
BYTES = st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=12).map(b"".join)


def expected(data: bytes) -> bytes:
    """The answer to the whole, by the shortest definition."""
    return data.decode("utf-8", "surrogateescape").upper().encode("utf-8", "surrogateescape")


def test_dialogue_of_a_classic_client() -> None:
    conversation = Upper().open(PEER, lambda _data: None)
    assert conversation.start() == b""
    assert conversation.receive(b"hello") == b"HELLO"  # no newline: answered at once
    assert conversation.receive(b"\xc3") == b""
    assert conversation.receive(b"\xa9t") == "ÉT".encode()
    assert conversation.receive(b"x\xe2\x82") == b"X"
    assert not conversation.done
    assert conversation.end() == b"\xe2\x82"


@pytest.mark.parametrize("size", [80, 512])
def test_a_buffer_padded_with_zeros_comes_back_whole(size: int) -> None:
    buffer = b"hello".ljust(size, b"\0")
    assert talk(Upper(), [buffer]).said == b"HELLO".ljust(size, b"\0")


@pytest.mark.parametrize(
    "wrong",
    [
        b"\xff",
        b"\x80",
        b"\xc0",
        b"\xc1",
        b"\xf5",
        b"\xe0\x9f",
        b"\xed\xa0",
        b"\xed\xbf",
        b"\xf0\x8f",
        b"\xf4\x90",
    ],
)
def test_what_can_begin_no_character_is_not_held_back(wrong: bytes) -> None:
    assert talk(Upper(), [wrong, b"a"]).turns[1:3] == [wrong, b"A"]


@pytest.mark.parametrize(
    "begun",
    [b"\xc2", b"\xdf", b"\xe0", b"\xe0\xa0", b"\xed", b"\xed\x9f", b"\xf0\x90", b"\xf0\x90\x80", b"\xf4\x8f"],
)
def test_what_can_begin_a_character_waits_for_its_rest(begun: bytes) -> None:
    assert talk(Upper(), [b"a" + begun, b"a"]).turns[1:] == [b"A", begun + b"A", b""] + [b""] * 3


@pytest.mark.parametrize("size", [1, 2, 3])
def test_only_what_may_still_become_a_character_is_held(size: int) -> None:
    """Against a definition that shares nothing with the code: is there any end that makes it valid?"""
    leads = range(0xC2, 0xF5)
    tails = range(0x7F, 0xC1)
    for begun in itertools.product(leads, *[tails] * (size - 1)):
        data = bytes(begun)
        completable = any(_is_text(data + end) for end in ENDS)
        held = not talk(Upper(), [data]).turns[1]
        assert held == completable, data


ENDS = [bytes([first] + [0x80] * more) for first in (0x80, 0x90, 0xA0) for more in (0, 1, 2)]


def _is_text(data: bytes) -> bool:
    try:
        return len(data.decode("utf-8")) == 1
    except UnicodeDecodeError:
        return False


def test_capitals_look_at_one_character_at_a_time() -> None:
    """What the answer to a cut text rests on: CPython's upper() has no context (lower() has: Σ)."""
    around = ("a", "Σ", "\u0345", "i\u0307", "\U00010428")
    capitals = {context: context.upper() for context in around}
    for number in itertools.chain(range(0xD800), range(0xE000, 0x110000)):
        character = chr(number)
        upper = character.upper()
        if upper == character and not character.isalpha() and not 0x300 <= number < 0x370:
            continue  # nothing that changes, nor that could change a neighbour
        for context in around:
            there = capitals[context]
            assert (context + character + context).upper() == there + upper + there, hex(number)


@given(cut_anywhere(BYTES))
def test_the_cut_changes_nothing(chunks: list[bytes]) -> None:
    assert talk(Upper(), chunks).said == expected(b"".join(chunks))


@given(BYTES)
def test_cut_at_every_place_and_byte_by_byte(data: bytes) -> None:
    for chunks in [*cuts(data), single(data)]:
        assert talk(Upper(), chunks).said == expected(data)


@given(st.lists(BYTES.filter(bool), max_size=4))
def test_messages_with_boundaries_are_answered_each_for_itself(messages: list[bytes]) -> None:
    turns = talk(Upper(), messages, WHOLE).turns
    assert turns[1 : len(messages) + 1] == [expected(message) for message in messages]


@given(BYTES)
def test_a_datagram_is_answered_whole(data: bytes) -> None:
    assert Upper().answer(data, WHOLE) == expected(data)
