from __future__ import annotations

from bothends.services.base import Conversation, Peer, Post, Service
from bothends.testing import END, bytewise, cuts, replay, whole
from bothends.testing.services import Digest, Echo, Large, LastWord, Lines, Pulled, Welcome, pattern


def test_replay_says_what_was_said_at_each_step() -> None:
    assert replay(Lines(), [b"he", b"llo\nwor", b"ld", END]) == [b"", b"", b"HELLO\n", b"", b"WORLD"]


def test_replay_stops_when_the_service_is_done() -> None:
    assert replay(Lines(), [b"one\n", b"!\n", b"two\n", END]) == [b"", b"ONE\n", b"bye\n"]
    assert replay(Welcome(), [b"hello?", END]) == [b"welcome and goodbye\n"]
    assert replay(LastWord(), [b"x", END])[-1].startswith(b"500")


def test_replay_follows_more() -> None:
    assert replay(Pulled(100_000), [END]) == [pattern(100_000)]
    assert len(replay(Pulled(), [END], pulls=3)[0]) == 3 * 32 * 1024


def test_replay_closes_even_after_a_mistake() -> None:
    closed = []

    class Broken(Service, Conversation):
        def open(self, peer: Peer, post: Post) -> Conversation:
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
        raise AssertionError("the service's error is the caller's to see")


def test_whole_adds_the_end() -> None:
    assert whole(Lines(), [b"a\nb"]) == b"A\nB"
    assert whole(Digest(), [b"ab", b"c"]) == b"3 352441c2\n"


def test_cuts_are_all_and_lose_nothing() -> None:
    assert list(cuts(b"abc")) == [[b"abc"], [b"a", b"bc"], [b"ab", b"c"]]
    assert [b"a", b"b", b"c"] in list(cuts(b"abc", 2))
    assert all(b"".join(pieces) == b"hello" and all(pieces) for pieces in cuts(b"hello", 4))
    assert len(list(cuts(b"hello", 4))) == 2**4
    assert list(cuts(b"")) == [[b""]]


def test_bytewise() -> None:
    assert bytewise(b"abc") == [b"a", b"b", b"c"]


def test_the_suites_services_are_blind_to_chunking() -> None:
    data = b"one\ntwo\n!\nthree"
    for make, answer in ((Lines, b"ONE\nTWO\nbye\n"), (Echo, data), (Digest, whole(Digest(), [data]))):
        for pieces in (*cuts(data, 2), bytewise(data)):
            assert whole(make(), pieces) == answer


def test_large_answers_once() -> None:
    assert replay(Large(10), [b"a", b"b", END]) == [b"", pattern(10), b"", b""]
