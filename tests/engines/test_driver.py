"""`engines/driver.py`: a conversation without a socket: its data, its events and its end."""

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
NOW = 1000.0  # seconds on the clock of the caller
LISTENER = cast(Listener, None)  # unused here


class FactoryService(Service):
    """A service whose conversations a function creates."""

    name = "factory"

    def __init__(self, make: Callable[[], Conversation]) -> None:
        self.make = make

    def open(self, peer: Peer, push: Push) -> Conversation:
        return self.make()


class Upper(Conversation):
    """Replies in upper case, and with "bye" to EOF."""

    def receive(self, data: bytes) -> bytes:
        return data.upper()

    def end(self) -> bytes:
        return b"bye"


def make_driver(make: Callable[[], Conversation]) -> tuple[ConversationDriver, list[Event]]:
    events: list[Event] = []
    context = EngineContext(FactoryService(make), [], stop=None, observe=events.append)  # type: ignore[arg-type]
    return ConversationDriver(context, LISTENER, PEER), events


def type_names(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_driver_reports_whole_conversation() -> None:
    driver, events = make_driver(Upper)
    assert driver.start() == b""
    assert driver.receive(b"hi", NOW) == b"HI"
    driver.bytes_sent(memoryview(b"HI"))
    assert not driver.finished
    assert driver.receive_eof() == b"bye"
    assert driver.finished
    driver.close()
    driver.close()
    assert type_names(events) == ["Accepted", "Received", "Sent", "PeerEof", "Closed"]
    assert isinstance(events[0], Accepted)
    assert (events[0].peer, events[0].local, events[0].connection) == (PEER.address, PEER.local, 7)
    assert isinstance(events[1], Received)
    assert events[1].data == b"hi"
    assert isinstance(events[2], Sent)
    assert events[2].data == b"HI"
    assert isinstance(events[3], PeerEof)
    assert isinstance(events[4], Closed)
    assert (events[4].cause, events[4].received, events[4].sent) == (CloseReason.PEER, 2, 2)


def test_driver_done_sets_service_cause() -> None:
    class Once(Upper):
        def receive(self, data: bytes) -> bytes:
            self.done = True
            return b"once"

    driver, _ = make_driver(Once)
    driver.start()
    assert driver.receive(b"x", NOW) == b"once"
    assert driver.finished
    assert driver.stop_reading(CloseReason.PEER) == b""
    driver.close()
    assert driver.cause is CloseReason.SERVICE


@pytest.mark.parametrize("step", ["open", "start", "receive", "end", "produce", "closed"])
def test_driver_service_error_fails_conversation(step: str) -> None:
    class Bad(Conversation):
        def __init__(self) -> None:
            self._at("open")

        def _at(self, method: str) -> bytes:
            if method == step:
                raise ZeroDivisionError(method)
            return b""

        def start(self) -> bytes:
            return self._at("start")

        def receive(self, data: bytes) -> bytes:
            return self._at("receive")

        def end(self) -> bytes:
            return self._at("end")

        def produce(self) -> bytes:
            return self._at("produce")

        def closed(self) -> None:
            self._at("closed")

    driver, events = make_driver(Bad)
    outputs = [
        driver.start(),
        driver.receive(b"x", NOW) if not driver.finished else b"",
        driver.produce(),
        driver.receive_eof(),
    ]
    driver.close()
    assert outputs == [b""] * 4
    assert driver.cause is CloseReason.FAILED
    failures = [event for event in events if isinstance(event, ServiceFailed)]
    assert [type(failure.error) for failure in failures] == [ZeroDivisionError]
    assert type_names(events)[-1] == "Closed"


def test_driver_failure_with_reply_sends_and_reports() -> None:
    class Sorry(Upper):
        def receive(self, data: bytes) -> bytes:
            self.done = True
            self.failure = ValueError("too long")
            return b"sorry"

    driver, events = make_driver(Sorry)
    assert driver.receive(b"x", NOW) == b"sorry"
    assert driver.finished
    assert driver.cause is CloseReason.FAILED
    assert "ServiceFailed" in type_names(events)


def test_driver_pull_finishes_when_producer_is_empty() -> None:
    class Counting(Upper):
        def __init__(self) -> None:
            self.left = 2

        def end(self) -> bytes:
            return b""

        def produce(self) -> bytes:
            self.left -= 1
            return b"again" if self.left >= 0 else b""

    driver, _ = make_driver(Counting)
    assert driver.wants_pull
    driver.receive_eof()
    assert not driver.finished
    assert [driver.produce(), driver.produce()] == [b"again", b"again"]
    assert not driver.finished
    assert driver.produce() == b""
    assert driver.finished


def test_driver_without_observer_counts() -> None:
    context = EngineContext(FactoryService(Upper), [], stop=None)  # type: ignore[arg-type]
    driver = ConversationDriver(context, LISTENER, PEER)
    assert driver.receive(b"hi", NOW) == b"HI"
    driver.bytes_sent(b"HI")
    driver.close(CloseReason.RESET)
    assert (driver.received, driver.sent, driver.cause) == (2, 2, CloseReason.RESET)


class HandshakeConversation(Conversation):
    """A layer: takes the first chunk as its handshake, and logs plaintext that differs from its output."""

    def __init__(self) -> None:
        self.handshaking = True
        self.inner_traffic = deque()
        self.closed_locally = False

    def receive(self, data: bytes) -> bytes:
        if self.handshaking:
            self.handshaking = False
            self.handshake_info = "test layer"
            self.proxied_peer = Peer(Address("inet", "192.0.2.77", 1), PEER.local, connection=7)
            return b""
        assert self.inner_traffic is not None
        self.inner_traffic.extend([(True, data.upper()), (False, b"OH"), (True, b"")])
        return b"oh"

    def close(self) -> bytes:
        self.closed_locally = True
        return b""


def test_driver_emits_inner_traffic() -> None:
    driver, events = make_driver(HandshakeConversation)
    assert driver.handshaking
    driver.receive(b"hi", NOW)
    assert not driver.handshaking
    assert driver.receive(b"psst", NOW) == b"oh"
    driver.bytes_sent(b"oh")
    driver.receive_eof()
    assert type_names(events) == ["Accepted", "HandshakeCompleted", "Received", "Sent", "PeerEof"]
    assert events[1] == HandshakeCompleted(
        7, Address("inet", "192.0.2.77", 1), PEER.address, "test layer", at=events[1].at
    )
    assert [event.data for event in events if isinstance(event, Received | Sent)] == [b"PSST", b"OH"]
    assert {
        event.peer.host for event in events[1:] if isinstance(event, HandshakeCompleted | Received | PeerEof)
    } == {"192.0.2.77"}
    driver.close()
    assert (driver.received, driver.sent, driver.cause) == (6, 2, CloseReason.PEER)


def test_driver_pull_is_known_after_handshake() -> None:
    class Late(HandshakeConversation):
        @property
        def wants_pull(self) -> bool:
            return not self.handshaking

    driver, _ = make_driver(Late)
    assert not driver.wants_pull
    driver.receive(b"hi", NOW)
    assert driver.wants_pull


@pytest.mark.parametrize("cause", [CloseReason.DRAINED, CloseReason.IDLE])
def test_driver_stop_reading_closes_without_eof(cause: CloseReason) -> None:
    conversation = HandshakeConversation()
    conversation.handshaking = False
    driver, _ = make_driver(lambda: conversation)
    driver.stop_reading(cause)
    assert conversation.closed_locally
    assert driver.cause is cause


def test_driver_rate_limit_is_reported_once() -> None:
    events: list[Event] = []
    context = EngineContext(
        FactoryService(Upper), [], ShutdownFlags(), limits=Limits(rate=1000), observe=events.append
    )
    driver = ConversationDriver(context, LISTENER, PEER)
    driver.receive(b"x" * 900, NOW)
    assert driver.paused_until is None
    driver.receive(b"x" * 1000, NOW)
    assert driver.paused_until is not None
    assert NOW + 0.5 < driver.paused_until < NOW + 1
    driver.receive(b"x" * 1000, NOW)
    assert [event.rate for event in events if isinstance(event, RateLimited)] == [1000]
