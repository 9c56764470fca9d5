from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.services.upper import Upper
from tests.services.scripted import MESSAGE_PEER, PEER, bytewise, cuts, random_chunks, run_conversation

# Valid and invalid input: characters of each length, their fragments, overlong forms, surrogates, code points
# beyond Unicode, padding.
SAMPLES = [
    b"hello\n",
    b"\0" * 12,
    *(text.encode() for text in ("é", "ß", "ŉ", "ﬁ", "Ω\u0308ς", "\U00010428", "i\u0307\u0345")),
    *(b"\xc3", b"\xa9", b"\xe2\x82", b"\xf0\x90", b"\xf0\x90\x90"),
    *(b"\xc0\xaf", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xed\xa0", b"\xed", b"\xf4\x90\x80\x80", b"\xf5"),
]
BYTES = st.lists(st.sampled_from(SAMPLES) | st.binary(max_size=4), max_size=12).map(b"".join)


def expected(data: bytes) -> bytes:
    """Return the answer to the whole input, by the shortest definition."""
    return data.decode("utf-8", "surrogateescape").upper().encode("utf-8", "surrogateescape")


def test_conversation_of_classic_client() -> None:
    conversation = Upper().open(PEER, lambda _data: None)
    assert conversation.start() == b""
    assert conversation.receive(b"hello") == b"HELLO"  # no newline: answered at once
    assert conversation.receive(b"\xc3") == b""
    assert conversation.receive(b"\xa9t") == "ÉT".encode()
    assert conversation.receive(b"x\xe2\x82") == b"X"
    assert not conversation.done
    assert conversation.end() == b"\xe2\x82"


@pytest.mark.parametrize("size", [80, 512])
def test_zero_padded_buffer_is_preserved(size: int) -> None:
    buffer = b"hello".ljust(size, b"\0")
    assert run_conversation(Upper(), [buffer]).output == b"HELLO".ljust(size, b"\0")


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
def test_invalid_start_is_not_held(wrong: bytes) -> None:
    assert run_conversation(Upper(), [wrong, b"a"]).turns[1:3] == [wrong, b"A"]


@pytest.mark.parametrize(
    "partial",
    [b"\xc2", b"\xdf", b"\xe0", b"\xe0\xa0", b"\xed", b"\xed\x9f", b"\xf0\x90", b"\xf0\x90\x80", b"\xf4\x8f"],
)
def test_partial_character_is_held(partial: bytes) -> None:
    assert (
        run_conversation(Upper(), [b"a" + partial, b"a"]).turns[1:] == [b"A", partial + b"A", b""] + [b""] * 3
    )


# All bytes that may follow a first one, and one less and one more; and the ends of the ranges of RFC 3629.
TAILS = range(0x7F, 0xC1)
TAILS_AT_ENDS = (0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0)


@pytest.mark.parametrize(
    ("size", "tails"),
    [
        (1, TAILS),
        (2, TAILS),
        (3, TAILS_AT_ENDS),
        pytest.param(3, TAILS, marks=pytest.mark.slow),
    ],
    ids=["one byte", "two bytes", "three bytes at the ends of ranges", "three bytes"],
)
def test_only_completable_bytes_are_held(size: int, tails: Sequence[int]) -> None:
    """Compare with an independent definition: does any continuation make the bytes valid?"""
    leads = range(0xC2, 0xF5)
    for parts in itertools.product(leads, *[tails] * (size - 1)):
        data = bytes(parts)
        completable = any(_is_text(data + end) for end in ENDS)
        held = not run_conversation(Upper(), [data]).turns[1]
        assert held == completable, data


ENDS = [bytes([first] + [0x80] * more) for first in (0x80, 0x90, 0xA0) for more in (0, 1, 2)]


def _is_text(data: bytes) -> bool:
    try:
        return len(data.decode("utf-8")) == 1
    except UnicodeDecodeError:
        return False


def test_str_upper_is_context_free() -> None:
    """CPython's upper() is context-free (lower() is not: Σ), so cut text can be converted chunk by chunk."""
    around = ("a", "Σ", "\u0345", "i\u0307", "\U00010428")
    capitals = {context: context.upper() for context in around}
    for number in itertools.chain(range(0xD800), range(0xE000, 0x110000)):
        character = chr(number)
        upper = character.upper()
        if upper == character and not character.isalpha() and not 0x300 <= number < 0x370:
            continue  # neither changes nor could change a neighbour
        for context in around:
            expected_context = capitals[context]
            assert (context + character + context).upper() == expected_context + upper + expected_context, (
                hex(number)
            )


@given(random_chunks(BYTES))
def test_output_is_independent_of_chunking(chunks: list[bytes]) -> None:
    assert run_conversation(Upper(), chunks).output == expected(b"".join(chunks))


@given(BYTES)
def test_output_for_every_split_and_bytewise(data: bytes) -> None:
    for chunks in [*cuts(data), bytewise(data)]:
        assert run_conversation(Upper(), chunks).output == expected(data)


@given(st.lists(BYTES.filter(bool), max_size=4))
def test_messages_are_answered_independently(messages: list[bytes]) -> None:
    turns = run_conversation(Upper(), messages, MESSAGE_PEER).turns
    assert turns[1 : len(messages) + 1] == [expected(message) for message in messages]


@given(BYTES)
def test_datagram_is_answered_whole(data: bytes) -> None:
    assert Upper().answer(data, MESSAGE_PEER) == expected(data)
