"""An exchange without a connection: what is said, what is told, and how it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import cast

import pytest

from bothends.endpoints import Address
from bothends.engines.base import Job, Limits
from bothends.engines.driver import Exchange
from bothends.events import Cause, Closed, Ended, Established, Event, Failed, Opened, Received, Sent, Slowed
from bothends.services.base import Conversation, Peer, Post, Service
from bothends.sockets import Listener

PEER = Peer(Address("inet", "192.0.2.1", 5000), Address("inet", "192.0.2.2", 12000), connection=7)
LISTENER = cast(Listener, None)  # nothing here looks at it


class Made(Service):
    """A service whose conversations a function makes."""

    name = "made"

    def __init__(self, make: Callable[[], Conversation]) -> None:
        self.make = make

    def open(self, peer: Peer, post: Post) -> Conversation:
        return self.make()


class Upper(Conversation):
    """Says what it hears in capitals, and a last word."""

    def receive(self, data: bytes) -> bytes:
        return data.upper()

    def end(self) -> bytes:
        return b"bye"


def exchange(make: Callable[[], Conversation]) -> tuple[Exchange, list[Event]]:
    told: list[Event] = []
    job = Job(Made(make), [], stop=None, observe=told.append)  # type: ignore[arg-type]
    return Exchange(job, LISTENER, PEER), told


def kinds(told: list[Event]) -> list[str]:
    return [type(event).__name__ for event in told]


def test_a_whole_conversation_is_driven_and_told() -> None:
    talk, told = exchange(Upper)
    assert talk.start() == b""
    assert talk.receive(b"hi") == b"HI"
    talk.took(memoryview(b"HI"))
    assert not talk.over
    assert talk.end() == b"bye"
    assert talk.over
    talk.close()
    talk.close()
    assert kinds(told) == ["Opened", "Received", "Sent", "Ended", "Closed"]
    assert isinstance(told[0], Opened)
    assert (told[0].peer, told[0].local, told[0].connection) == (PEER.address, PEER.local, 7)
    assert isinstance(told[1], Received)
    assert told[1].data == b"hi"
    assert isinstance(told[2], Sent)
    assert told[2].data == b"HI"
    assert isinstance(told[3], Ended)
    assert isinstance(told[4], Closed)
    assert (told[4].cause, told[4].received, told[4].sent) == (Cause.PEER, 2, 2)


def test_done_ends_it_with_the_services_cause() -> None:
    class Once(Upper):
        def receive(self, data: bytes) -> bytes:
            self.done = True
            return b"once"

    talk, _ = exchange(Once)
    talk.start()
    assert talk.receive(b"x") == b"once"
    assert talk.over
    assert talk.finish(Cause.PEER) == b""
    talk.close()
    assert talk.cause is Cause.SERVICE


@pytest.mark.parametrize("step", ["open", "start", "receive", "end", "more", "closed"])
def test_a_service_that_raises_ends_its_own_conversation_only(step: str) -> None:
    class Bad(Conversation):
        def __init__(self) -> None:
            self._at("open")

        def _at(self, now: str) -> bytes:
            if now == step:
                raise ZeroDivisionError(now)
            return b""

        def start(self) -> bytes:
            return self._at("start")

        def receive(self, data: bytes) -> bytes:
            return self._at("receive")

        def end(self) -> bytes:
            return self._at("end")

        def more(self) -> bytes:
            return self._at("more")

        def closed(self) -> None:
            self._at("closed")

    talk, told = exchange(Bad)
    said = [talk.start(), talk.receive(b"x") if not talk.over else b"", talk.more(), talk.end()]
    talk.close()
    assert said == [b""] * 4
    assert talk.cause is Cause.FAILED
    failures = [event for event in told if isinstance(event, Failed)]
    assert [type(failure.error) for failure in failures] == [ZeroDivisionError]
    assert kinds(told)[-1] == "Closed"


def test_a_failure_with_a_last_word_is_said_and_told() -> None:
    class Sorry(Upper):
        def receive(self, data: bytes) -> bytes:
            self.done = True
            self.failure = ValueError("too long")
            return b"sorry"

    talk, told = exchange(Sorry)
    assert talk.receive(b"x") == b"sorry"
    assert talk.over
    assert talk.cause is Cause.FAILED
    assert "Failed" in kinds(told)


def test_who_pulls_is_over_only_when_there_is_no_more() -> None:
    class Counting(Upper):
        def __init__(self) -> None:
            self.left = 2

        def end(self) -> bytes:
            return b""

        def more(self) -> bytes:
            self.left -= 1
            return b"again" if self.left >= 0 else b""

    talk, _ = exchange(Counting)
    assert talk.pulls
    talk.end()
    assert not talk.over
    assert [talk.more(), talk.more()] == [b"again", b"again"]
    assert not talk.over
    assert talk.more() == b""
    assert talk.over


def test_nobody_listening_is_no_difference() -> None:
    job = Job(Made(Upper), [], stop=None)  # type: ignore[arg-type]
    talk = Exchange(job, LISTENER, PEER)
    assert talk.receive(b"hi") == b"HI"
    talk.took(b"HI")
    talk.close(Cause.RESET)
    assert (talk.received, talk.sent, talk.cause) == (2, 2, Cause.RESET)


class Wrapped(Conversation):
    """Takes one chunk as a handshake, then lowers its voice on the wire."""

    def __init__(self) -> None:
        self.handshaking = True
        self.passed = deque()
        self.left = False

    def receive(self, data: bytes) -> bytes:
        if self.handshaking:
            self.handshaking = False
            self.agreed = "whispering"
            self.true_peer = Peer(Address("inet", "192.0.2.77", 1), PEER.local, connection=7)
            return b""
        assert self.passed is not None
        self.passed.extend([(True, data.upper()), (False, b"OH"), (True, b"")])
        return b"oh"

    def leave(self) -> bytes:
        self.left = True
        return b""


def test_what_is_wrapped_is_told_as_it_was_said() -> None:
    talk, told = exchange(Wrapped)
    assert talk.handshaking
    talk.receive(b"hi")
    assert not talk.handshaking
    assert talk.receive(b"psst") == b"oh"
    talk.took(b"oh")
    talk.end()
    assert kinds(told) == ["Opened", "Established", "Received", "Sent", "Ended"]
    assert told[1] == Established(
        7, Address("inet", "192.0.2.77", 1), PEER.address, "whispering", at=told[1].at
    )
    assert [event.data for event in told if isinstance(event, Received | Sent)] == [b"PSST", b"OH"]
    assert {event.peer.host for event in told[1:] if isinstance(event, Established | Received | Ended)} == {
        "192.0.2.77"
    }
    talk.close()
    assert (talk.received, talk.sent, talk.cause) == (6, 2, Cause.PEER)


def test_who_pulls_behind_a_handshake_is_known_after_it() -> None:
    class Late(Wrapped):
        @property
        def pulls(self) -> bool:
            return not self.handshaking

    talk, _ = exchange(Late)
    assert not talk.pulls
    talk.receive(b"hi")
    assert talk.pulls


@pytest.mark.parametrize("cause", [Cause.DRAINED, Cause.IDLE])
def test_a_limit_is_no_end_of_the_peers(cause: Cause) -> None:
    made = Wrapped()
    made.handshaking = False
    talk, _ = exchange(lambda: made)
    talk.finish(cause)
    assert made.left
    assert talk.cause is cause


def test_which_limit_comes_next() -> None:
    def limits_of(made: Wrapped, **limits: float) -> Exchange:
        job = Job(Made(lambda: made), [], stop=None, limits=Limits(**limits))  # type: ignore[arg-type]
        return Exchange(job, LISTENER, PEER)

    talk = limits_of(Wrapped(), handshake=5, idle=1, life=100)
    assert talk.next_limit(began=10, moved=12) == (15, Cause.HANDSHAKE)
    assert talk.next_look(began=10, moved=12, now=12) == 13  # it may be over by then
    talk.receive(b"hi")
    assert talk.next_limit(began=10, moved=12) == (13, Cause.IDLE)
    assert talk.next_limit(began=10, moved=109.5) == (110, Cause.LIFE)
    made = Wrapped()
    made.handshaking = False
    talk = limits_of(made)
    assert talk.next_limit(began=10, moved=12) is None
    assert talk.next_look(began=10, moved=12, now=12) is None


def test_who_sends_too_fast_is_told_once_until_it_has_kept_the_rate() -> None:
    told: list[Event] = []
    job = Job(Made(Upper), [], stop=None, limits=Limits(rate=1000), observe=told.append)  # type: ignore[arg-type]
    talk = Exchange(job, LISTENER, PEER)
    talk.receive(b"x" * 900)
    assert talk.rest == 0
    talk.receive(b"x" * 1000)
    assert 0.5 < talk.rest < 1
    talk.receive(b"x" * 1000)
    assert [event.rate for event in told if isinstance(event, Slowed)] == [1000]
