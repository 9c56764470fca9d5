r"""Scripted streams: run a conversation without a socket, on input that is split in every possible way.

    assert replay(Echo(), [b"he", b"llo\n", END]) == [b"", b"he", b"llo\n", b""]

    for pieces in all_splits(b"one\ntwo\n"):
        assert replay_all(Upper(), pieces) == b"ONE\nTWO\n"

The replies of a service must not depend on chunking: a stream has no message boundaries, so the network may
split it anywhere.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, pairwise
from typing import Final, TypeAlias

from bothends.endpoints import Address
from bothends.services.base import Peer, Push, Service, discard_push


class EndOfStream(enum.Enum):
    """The type of END: the peer has finished sending."""

    END = "END"


END: Final = EndOfStream.END
Script: TypeAlias = Iterable[bytes | EndOfStream]

# Addresses for documentation (RFC 5737), which belong to no host.
PEER: Final = Peer(Address("inet", "192.0.2.1", 40000), Address("inet", "192.0.2.2", 7), connection=1)

# Calls of `produce` in one step, as a bound for endless producers.
MAX_PULLS: Final = 1000


def replay(
    service: Service,
    script: Script,
    *,
    peer: Peer = PEER,
    push: Push = discard_push,
    max_pulls: int = MAX_PULLS,
) -> list[bytes]:
    """Run one conversation with scripted input.

    Args:
        service: opens the conversation.
        script: the input: chunks, and END for EOF.
        peer, push: passed to `service.open`.
        max_pulls: maximum number of calls of `produce` in each step.

    Returns: the output of each step. The first entry is the output of `start`, then there is one for each
        item of the script. The list is shorter if the service is done early.

    Raises the exceptions of the service. `closed` is called in any case.
    """
    conversation = service.open(peer, push)
    items = iter(script)
    outputs: list[bytes] = []
    try:
        output = conversation.start()
        while True:
            for _ in range(max_pulls):
                if conversation.done or not (produced := conversation.produce()):
                    break
                output += produced
            outputs.append(output)
            item = next(items, None)
            if item is None or conversation.done:
                return outputs
            output = conversation.end() if item is END else conversation.receive(item)
    finally:
        conversation.closed()


def replay_all(service: Service, pieces: Iterable[bytes], *, peer: Peer = PEER) -> bytes:
    """Return the whole output of a service for a peer that sends these pieces, then EOF."""
    return b"".join(replay(service, [*pieces, END], peer=peer))


def all_splits(data: bytes, max_splits: int = 1) -> Iterator[list[bytes]]:
    """Yield every way to split `data` into non-empty pieces, with at most `max_splits` splits.

    The first one is `[data]`. There are about len(data)**max_splits / max_splits! of them.
    """
    for count in range(max_splits + 1):
        for offsets in combinations(range(1, len(data)), count):
            yield _split_at(data, offsets)


def bytewise(data: bytes) -> list[bytes]:
    """Split `data` into single bytes."""
    return [data[offset : offset + 1] for offset in range(len(data))]


def _split_at(data: bytes, offsets: Sequence[int]) -> list[bytes]:
    edges = [0, *offsets, len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]
