from __future__ import annotations

from bothends.services.base import Conversation, Peer, Push, Service
from bothends.testing import END, all_splits, bytewise, replay, replay_all
from bothends.testing.services import (
    Digest,
    EchoService,
    ErrorReply,
    Greeting,
    LargeReply,
    PullProducer,
    UppercaseLines,
    pattern,
)


def test_replay_returns_output_per_step() -> None:
    assert replay(UppercaseLines(), [b"he", b"llo\nwor", b"ld", END]) == [b"", b"", b"HELLO\n", b"", b"WORLD"]


def test_replay_stops_when_service_is_done() -> None:
    assert replay(UppercaseLines(), [b"one\n", b"!\n", b"two\n", END]) == [b"", b"ONE\n", b"bye\n"]
    assert replay(Greeting(), [b"hello?", END]) == [b"welcome and goodbye\n"]
    assert replay(ErrorReply(), [b"x", END])[-1].startswith(b"500")


def test_replay_calls_pull_producer() -> None:
    assert replay(PullProducer(100_000), [END]) == [pattern(100_000)]
    assert len(replay(PullProducer(), [END], max_pulls=3)[0]) == 3 * 32 * 1024


def test_replay_closes_after_service_error() -> None:
    closed = []

    class Broken(Service, Conversation):
        def open(self, peer: Peer, push: Push) -> Conversation:
            return self

        def receive(self, data: bytes) -> bytes:
            raise ValueError(data)

        def closed(self) -> None:
            closed.append(self)

    try:
        replay(Broken(), [b"x"])
    except ValueError:
        assert len(closed) == 1
    else:
        raise AssertionError("the exception of the service is lost")


def test_replay_all_appends_end() -> None:
    assert replay_all(UppercaseLines(), [b"a\nb"]) == b"A\nB"
    assert replay_all(Digest(), [b"ab", b"c"]) == b"3 352441c2\n"


def test_all_splits_are_complete() -> None:
    assert list(all_splits(b"abc")) == [[b"abc"], [b"a", b"bc"], [b"ab", b"c"]]
    assert [b"a", b"b", b"c"] in list(all_splits(b"abc", 2))
    assert all(b"".join(pieces) == b"hello" and all(pieces) for pieces in all_splits(b"hello", 4))
    assert len(list(all_splits(b"hello", 4))) == 2**4
    assert list(all_splits(b"")) == [[b""]]


def test_bytewise() -> None:
    assert bytewise(b"abc") == [b"a", b"b", b"c"]


def test_contract_services_ignore_chunking() -> None:
    data = b"one\ntwo\n!\nthree"
    for make, answer in (
        (UppercaseLines, b"ONE\nTWO\nbye\n"),
        (EchoService, data),
        (Digest, replay_all(Digest(), [data])),
    ):
        for pieces in (*all_splits(data, 2), bytewise(data)):
            assert replay_all(make(), pieces) == answer


def test_large_reply_answers_once() -> None:
    assert replay(LargeReply(10), [b"a", b"b", END]) == [b"", pattern(10), b"", b""]
