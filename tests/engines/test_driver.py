"""An exchange without a connection: what is said, what is told, and how it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import cast

import pytest

from bothends.endpoints import Address
from bothends.engines.base import EngineContext, Limits
from bothends.engines.driver import ConversationDriver
from bothends.engines.shutdown import ShutdownFlags
from bothends.events import (
    Accepted,
    Closed,
    CloseReason,
    Event,
    HandshakeCompleted,
    PeerEof,
    RateLimited,
    Received,
    Sent,
    ServiceFailed,
)
from bothends.services.base import Conversation, Peer, Push, Service
from bothends.sockets import Listener

PEER = Peer(Address("inet", "192.0.2.1", 5000), Address("inet", "192.0.2.2", 12000), connection=7)
LISTENER = cast(Listener, None)  # nothing here looks at it


class FactoryService(Service):
    """A service whose conversations a function makes."""

    name = "made"

    def __init__(self, make: Callable[[], Conversation]) -> None:
        self.make = make

    def open(self, peer: Peer, push: Push) -> Conversation:
        return self.make()


class Upper(Conversation):
    """Says what it hears in capitals, and a last word."""

    def receive(self, data: bytes) -> bytes:
        return data.upper()

    def end(self) -> bytes:
        return b"bye"


def make_driver(make: Callable[[], Conversation]) -> tuple[ConversationDriver, list[Event]]:
    told: list[Event] = []
    context = EngineContext(FactoryService(make), [], stop=None, observe=told.append)  # type: ignore[arg-type]
    return ConversationDriver(context, LISTENER, PEER), told


def type_names(told: list[Event]) -> list[str]:
    return [type(event).__name__ for event in told]


def test_driver_reports_whole_conversation() -> None:
    talk, told = make_driver(Upper)
    assert talk.start() == b""
    assert talk.receive(b"hi") == b"HI"
    talk.bytes_sent(memoryview(b"HI"))
    assert not talk.finished
    assert talk.receive_eof() == b"bye"
    assert talk.finished
    talk.close()
    talk.close()
    assert type_names(told) == ["Accepted", "Received", "Sent", "PeerEof", "Closed"]
    assert isinstance(told[0], Accepted)
    assert (told[0].peer, told[0].local, told[0].connection) == (PEER.address, PEER.local, 7)
    assert isinstance(told[1], Received)
    assert told[1].data == b"hi"
    assert isinstance(told[2], Sent)
    assert told[2].data == b"HI"
    assert isinstance(told[3], PeerEof)
    assert isinstance(told[4], Closed)
    assert (told[4].cause, told[4].received, told[4].sent) == (CloseReason.PEER, 2, 2)


def test_driver_done_sets_service_cause() -> None:
    class Once(Upper):
        def receive(self, data: bytes) -> bytes:
            self.done = True
            return b"once"

    talk, _ = make_driver(Once)
    talk.start()
    assert talk.receive(b"x") == b"once"
    assert talk.finished
    assert talk.stop_reading(CloseReason.PEER) == b""
    talk.close()
    assert talk.cause is CloseReason.SERVICE


@pytest.mark.parametrize("step", ["open", "start", "receive", "end", "more", "closed"])
def test_driver_service_error_fails_conversation(step: str) -> None:
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

        def produce(self) -> bytes:
            return self._at("more")

        def closed(self) -> None:
            self._at("closed")

    talk, told = make_driver(Bad)
    said = [
        talk.start(),
        talk.receive(b"x") if not talk.finished else b"",
        talk.produce(),
        talk.receive_eof(),
    ]
    talk.close()
    assert said == [b""] * 4
    assert talk.cause is CloseReason.FAILED
    failures = [event for event in told if isinstance(event, ServiceFailed)]
    assert [type(failure.error) for failure in failures] == [ZeroDivisionError]
    assert type_names(told)[-1] == "Closed"


def test_driver_failure_with_reply_sends_and_reports() -> None:
    class Sorry(Upper):
        def receive(self, data: bytes) -> bytes:
            self.done = True
            self.failure = ValueError("too long")
            return b"sorry"

    talk, told = make_driver(Sorry)
    assert talk.receive(b"x") == b"sorry"
    assert talk.finished
    assert talk.cause is CloseReason.FAILED
    assert "ServiceFailed" in type_names(told)


def test_driver_pull_finishes_when_producer_is_empty() -> None:
    class Counting(Upper):
        def __init__(self) -> None:
            self.left = 2

        def end(self) -> bytes:
            return b""

        def produce(self) -> bytes:
            self.left -= 1
            return b"again" if self.left >= 0 else b""

    talk, _ = make_driver(Counting)
    assert talk.wants_pull
    talk.receive_eof()
    assert not talk.finished
    assert [talk.produce(), talk.produce()] == [b"again", b"again"]
    assert not talk.finished
    assert talk.produce() == b""
    assert talk.finished


def test_driver_without_observer_counts() -> None:
    context = EngineContext(FactoryService(Upper), [], stop=None)  # type: ignore[arg-type]
    talk = ConversationDriver(context, LISTENER, PEER)
    assert talk.receive(b"hi") == b"HI"
    talk.bytes_sent(b"HI")
    talk.close(CloseReason.RESET)
    assert (talk.received, talk.sent, talk.cause) == (2, 2, CloseReason.RESET)


class HandshakeConversation(Conversation):
    """Takes one chunk as a handshake, then lowers its voice on the wire."""

    def __init__(self) -> None:
        self.handshaking = True
        self.inner_traffic = deque()
        self.closed_by_us = False

    def receive(self, data: bytes) -> bytes:
        if self.handshaking:
            self.handshaking = False
            self.handshake_info = "whispering"
            self.proxied_peer = Peer(Address("inet", "192.0.2.77", 1), PEER.local, connection=7)
            return b""
        assert self.inner_traffic is not None
        self.inner_traffic.extend([(True, data.upper()), (False, b"OH"), (True, b"")])
        return b"oh"

    def close(self) -> bytes:
        self.closed_by_us = True
        return b""


def test_driver_emits_inner_traffic() -> None:
    talk, told = make_driver(HandshakeConversation)
    assert talk.handshaking
    talk.receive(b"hi")
    assert not talk.handshaking
    assert talk.receive(b"psst") == b"oh"
    talk.bytes_sent(b"oh")
    talk.receive_eof()
    assert type_names(told) == ["Accepted", "HandshakeCompleted", "Received", "Sent", "PeerEof"]
    assert told[1] == HandshakeCompleted(
        7, Address("inet", "192.0.2.77", 1), PEER.address, "whispering", at=told[1].at
    )
    assert [event.data for event in told if isinstance(event, Received | Sent)] == [b"PSST", b"OH"]
    assert {
        event.peer.host for event in told[1:] if isinstance(event, HandshakeCompleted | Received | PeerEof)
    } == {"192.0.2.77"}
    talk.close()
    assert (talk.received, talk.sent, talk.cause) == (6, 2, CloseReason.PEER)


def test_driver_pull_is_known_after_handshake() -> None:
    class Late(HandshakeConversation):
        @property
        def wants_pull(self) -> bool:
            return not self.handshaking

    talk, _ = make_driver(Late)
    assert not talk.wants_pull
    talk.receive(b"hi")
    assert talk.wants_pull


@pytest.mark.parametrize("cause", [CloseReason.DRAINED, CloseReason.IDLE])
def test_driver_stop_reading_closes_without_eof(cause: CloseReason) -> None:
    made = HandshakeConversation()
    made.handshaking = False
    talk, _ = make_driver(lambda: made)
    talk.stop_reading(cause)
    assert made.closed_by_us
    assert talk.cause is cause


def test_driver_next_limit() -> None:
    def limits_of(made: HandshakeConversation, **limits: float) -> ConversationDriver:
        context = EngineContext(FactoryService(lambda: made), [], stop=None, limits=Limits(**limits))  # type: ignore[arg-type]
        return ConversationDriver(context, LISTENER, PEER)

    talk = limits_of(HandshakeConversation(), handshake=5, idle=1, life=100)
    assert talk.next_limit(opened_at=10, last_activity=12) == (15, CloseReason.HANDSHAKE)
    assert talk.next_deadline(opened_at=10, last_activity=12, now=12) == 13  # it may be over by then
    talk.receive(b"hi")
    assert talk.next_limit(opened_at=10, last_activity=12) == (13, CloseReason.IDLE)
    assert talk.next_limit(opened_at=10, last_activity=109.5) == (110, CloseReason.LIFE)
    made = HandshakeConversation()
    made.handshaking = False
    talk = limits_of(made)
    assert talk.next_limit(opened_at=10, last_activity=12) is None
    assert talk.next_deadline(opened_at=10, last_activity=12, now=12) is None


def test_driver_rate_limit_is_reported_once() -> None:
    told: list[Event] = []
    context = EngineContext(
        FactoryService(Upper), [], ShutdownFlags(), limits=Limits(rate=1000), observe=told.append
    )
    talk = ConversationDriver(context, LISTENER, PEER)
    talk.receive(b"x" * 900)
    assert talk.read_pause == 0
    talk.receive(b"x" * 1000)
    assert 0.5 < talk.read_pause < 1
    talk.receive(b"x" * 1000)
    assert [event.rate for event in told if isinstance(event, RateLimited)] == [1000]
