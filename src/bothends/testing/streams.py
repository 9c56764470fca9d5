"""Scripted streams: a conversation played without a socket, and every way to cut what is said to it.

    assert replay(Echo(), [b"he", b"llo\n", END]) == [b"", b"he", b"llo\n", b""]

    for pieces in cuts(b"one\ntwo\n"):
        assert whole(Upper(), pieces) == b"ONE\nTWO\n"

A service has to be blind to chunking: a stream has no messages, so the network may cut it anywhere,
and an answer that depends on where it was cut is wrong on some network.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, pairwise
from typing import Final, TypeAlias

from bothends.endpoints import Address
from bothends.services.base import Peer, Push, Service, discard_push


class EndOfStream(enum.Enum):
    """The peer has finished sending."""

    END = "END"


END: Final = EndOfStream.END
Script: TypeAlias = Iterable[bytes | EndOfStream]

# RFC 5737's addresses for examples: nobody's, so a service that looks for a real one finds none.
PEER: Final = Peer(Address("inet", "192.0.2.1", 40000), Address("inet", "192.0.2.2", 7), connection=1)

# How often `more` is followed at one step. A service that never stops is cut there.
MAX_PULLS: Final = 1000


def replay(
    service: Service,
    script: Script,
    *,
    peer: Peer = PEER,
    push: Push = discard_push,
    max_pulls: int = MAX_PULLS,
) -> list[bytes]:
    """Play the peer's side of one conversation; what the service said, step by step.

    The first entry is what it says unasked, then there is one for each item of the script; b"" where
    it says nothing. It stops when the service is done, so a shorter list means that it hung up.
    `pulls` is the most times that `more` is asked at each step. `closed` is called in any case.

    Raises:
        Whatever the service raises.
    """
    conversation = service.open(peer, push)
    pending = iter(script)
    said: list[bytes] = []
    try:
        answer = conversation.start()
        while True:
            for _ in range(max_pulls):
                if conversation.done or not (more := conversation.produce()):
                    break
                answer += more
            said.append(answer)
            item = next(pending, None)
            if item is None or conversation.done:
                return said
            answer = conversation.end() if item is END else conversation.receive(item)
    finally:
        conversation.closed()


def replay_all(service: Service, pieces: Iterable[bytes], *, peer: Peer = PEER) -> bytes:
    """All that the service says to a peer that says these pieces and then finishes."""
    return b"".join(replay(service, [*pieces, END], peer=peer))


def all_splits(data: bytes, max_splits: int = 1) -> Iterator[list[bytes]]:
    """Every way to cut `data` into pieces of at least one byte, with `most` cuts at the most.

    The first is `[data]`, uncut. There are about len(data)**most / most! of them.
    """
    for count in range(max_splits + 1):
        for places in combinations(range(1, len(data)), count):
            yield _split_at(data, places)


def bytewise(data: bytes) -> list[bytes]:
    """`data` one byte at a time."""
    return [data[place : place + 1] for place in range(len(data))]


def _split_at(data: bytes, offsets: Sequence[int]) -> list[bytes]:
    edges = [0, *offsets, len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]
