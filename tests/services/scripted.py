"""Drive services without a network, according to their contract (services/base.py)."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from types import FunctionType, ModuleType

from hypothesis import strategies as st

from bothends.endpoints import Address
from bothends.services.base import Conversation, Peer, Push, Service, discard_push

PEER = Peer(Address("inet", "127.0.0.1", 5000), Address("inet", "127.0.0.1", 12000), connection=1)
MESSAGE_PEER = replace(PEER, message_oriented=True)

# A limit, because `chargen` never ends.
MAX_PULLS = 3


@dataclass
class ConversationResult:
    """The output of each call of a conversation, and how it ended."""

    turns: list[bytes]
    done: bool
    failure: BaseException | None

    @property
    def output(self) -> bytes:
        return b"".join(self.turns)


def run_conversation(
    service: Service, chunks: Iterable[bytes], peer: Peer = PEER, push: Push = discard_push
) -> ConversationResult:
    """Run one conversation: the chunks, then the peer's EOF. Empty chunks are skipped."""
    conversation = service.open(peer, push)
    turns: list[bytes] = []
    try:
        turns.extend(_turns(conversation, [chunk for chunk in chunks if chunk]))
    finally:
        conversation.closed()
    return ConversationResult(turns, conversation.done, conversation.failure)


def _turns(conversation: Conversation, chunks: list[bytes]) -> Iterator[bytes]:
    yield conversation.start()
    for chunk in chunks:
        if conversation.done:
            return
        yield conversation.receive(chunk)
    if not conversation.done:
        yield conversation.end()
    for _ in range(MAX_PULLS):
        if conversation.done:
            return
        yield conversation.produce()


def cuts(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the data cut in two at every offset."""
    return ((data[:at], data[at:]) for at in range(len(data) + 1))


def bytewise(data: bytes) -> list[bytes]:
    """Return the data as chunks of one byte."""
    return [data[at : at + 1] for at in range(len(data))]


@st.composite
def random_chunks(draw: st.DrawFn, data: st.SearchStrategy[bytes]) -> list[bytes]:
    """Draw data, cut into chunks at random offsets."""
    whole = draw(data)
    offsets = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    return [whole[a:b] for a, b in zip([0, *offsets], [*offsets, len(whole)], strict=True)]


def retained_bytes(conversation: Conversation) -> int:
    """Return the number of bytes in all bytes objects that a conversation references."""
    seen: set[int] = set()
    todo: list[object] = [conversation]
    size = 0
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type | ModuleType | FunctionType | Service):
            continue
        seen.add(id(thing))
        if isinstance(thing, bytes | bytearray):
            size += len(thing)
        todo.extend(gc.get_referents(thing))
    return size
