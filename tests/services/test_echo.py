from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bothends.services.echo import Echo
from tests.services.scripted import PEER, random_chunks, run_conversation


@given(random_chunks(st.binary(max_size=64)))
def test_each_chunk_is_echoed_immediately(chunks: list[bytes]) -> None:
    chunks = [chunk for chunk in chunks if chunk]
    assert run_conversation(Echo(), chunks).turns[1 : len(chunks) + 1] == chunks


@given(st.binary(max_size=64))
def test_datagram_is_echoed_even_if_empty(data: bytes) -> None:
    assert Echo().answer(data, PEER) == data
