"""The contract of services/base.py, for every service of the registry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.services import registry
from bothends.services.base import Service, discard_push
from bothends.services.chargen import Chargen
from bothends.services.reply import Reply
from tests.services.scripted import (
    MAX_PULLS,
    MESSAGE_PEER,
    PEER,
    bytewise,
    cuts,
    random_chunks,
    retained_bytes,
    run_conversation,
)

NAMES = list(registry.BUILT_IN)
BYTES = st.binary(max_size=40) | st.text(max_size=20).map(str.encode) | st.just(b"one\r\ntwo\n\nthree")

# More than twice any limit, so a service that stores all input fails.
FLOOD_SIZE = 150_000
LARGEST_DATAGRAM = 65_507  # 65,535 minus the headers of IPv4 and UDP


def load(name: str) -> Service:
    """Load a service, with a fixed clock if it has one."""
    service = registry.load(name)
    if hasattr(service, "now"):
        service.now = lambda: 1_772_370_309.0
    return service


@pytest.mark.parametrize("name", NAMES)
def test_name_and_summary(name: str) -> None:
    service = load(name)
    assert service.name == name
    assert service.summary
    assert len(service.summary) <= 70  # fits a line of the list on a terminal of 100 columns
    assert "\n" not in service.summary
    assert service.streams or service.datagrams


@pytest.mark.parametrize("name", NAMES)
@given(chunks=random_chunks(BYTES))
def test_output_is_independent_of_chunking(name: str, chunks: list[bytes]) -> None:
    service = load(name)
    cut, whole = run_conversation(service, chunks), run_conversation(service, [b"".join(chunks)])
    assert cut.failure is whole.failure is None
    assert cut.done == whole.done
    if not hasattr(service, "depends_on_chunks"):
        assert cut.output == whole.output


@pytest.mark.parametrize("name", NAMES)
def test_output_for_every_split_and_bytewise(name: str) -> None:
    service = load(name)
    if hasattr(service, "depends_on_chunks"):
        pytest.skip(service.depends_on_chunks)
    data = "né\r\n\n\x1b[0m\0ŉ\n".encode() + b"\xff\xed\xa0\xf0\x90"
    whole = run_conversation(service, [data]).output
    for chunks in [*cuts(data), bytewise(data)]:
        assert run_conversation(service, chunks).output == whole


def test_only_reply_depends_on_chunking() -> None:
    assert [name for name in NAMES if hasattr(load(name), "depends_on_chunks")] == [Reply.name]


@pytest.mark.parametrize("name", NAMES)
@given(messages=st.lists(BYTES, max_size=4))
def test_messages_are_answered_independently(name: str, messages: list[bytes]) -> None:
    service = load(name)
    result = run_conversation(service, messages, MESSAGE_PEER)
    assert result.failure is None
    if not result.done:
        together = [
            run_conversation(service, [message], MESSAGE_PEER).turns[1] for message in messages if message
        ]
        assert result.turns[1 : 1 + len(together)] == together
        assert not any(result.turns[1 + len(together) :])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("peer", [PEER, MESSAGE_PEER], ids=["stream", "messages"])
@pytest.mark.parametrize("chunk", [b"x" * 4096, b"\xc3\xa9" * 2048, b"\n" * 4096, b"\xe2\x82", b"\r"])
def test_retained_memory_is_bounded(name: str, peer: object, chunk: bytes) -> None:
    conversation = load(name).open(PEER if peer is PEER else MESSAGE_PEER, discard_push)
    conversation.start()
    base = retained_bytes(conversation)
    for _ in range(FLOOD_SIZE // len(chunk)):
        if conversation.done:
            break
        conversation.receive(chunk)
    # The default line limit, one chunk over it, and that chunk once more in the error's traceback.
    assert retained_bytes(conversation) <= base + 65_536 + 2 * len(chunk) + 64
    conversation.closed()


@pytest.mark.parametrize("name", [name for name in NAMES if load(name).datagrams])
@given(data=BYTES)
def test_datagram_answer_never_raises(name: str, data: bytes) -> None:
    answer = load(name).answer(data, MESSAGE_PEER)
    assert answer is None or isinstance(answer, bytes)


@pytest.mark.parametrize("name", [name for name in NAMES if load(name).datagrams])
@pytest.mark.parametrize("size", [0, 1, LARGEST_DATAGRAM])
def test_datagrams_of_every_size(name: str, size: int) -> None:
    answer = load(name).answer(b"a" * size, MESSAGE_PEER)
    assert answer is None or len(answer) <= LARGEST_DATAGRAM


@pytest.mark.parametrize("name", [name for name in NAMES if load(name).datagrams])
def test_amplifying_service_has_rate_limit(name: str) -> None:
    """An empty datagram with a forged source must not get unlimited answers."""
    service = load(name)
    if service.answer(b"", MESSAGE_PEER):
        assert service.answers_per_second is not None


def test_only_chargen_produces_without_input() -> None:
    for name in NAMES:
        conversation = load(name).open(PEER, discard_push)
        conversation.start()
        pulls = [] if conversation.done else [conversation.produce() for _ in range(MAX_PULLS)]
        assert any(pulls) == (name == Chargen.name)
