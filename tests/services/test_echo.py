from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bothends.services.echo import Echo
from tests.services.scripted import PEER, cut_anywhere, talk


@given(cut_anywhere(st.binary(max_size=64)))
def test_each_chunk_comes_back_at_once(chunks: list[bytes]) -> None:
    chunks = [chunk for chunk in chunks if chunk]
    assert talk(Echo(), chunks).turns[1 : len(chunks) + 1] == chunks


@given(st.binary(max_size=64))
def test_a_datagram_comes_back_even_an_empty_one(data: bytes) -> None:
    assert Echo().answer(data, PEER) == data
