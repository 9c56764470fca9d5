"""What is known of sockets at a point: TCP states and buffers, from calls and packets."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import NoReturn

import pytest

from bothends.trace import socket_states
from bothends.trace.model import Call, Packet, Point, Socket, SocketAddress, Trace
from bothends.trace.socket_states import SocketState, SocketStateTracker

CLIENT, SERVER = SocketAddress("127.0.0.1", 40000), SocketAddress("127.0.0.1", 12000)
LISTENER, SENDER, READER = 1, 2, 3


class Story:
    """A connection between a client (socket 2) and a server (sockets 1 and 3), told event by event."""

    def __init__(self) -> None:
        self.trace = Trace()
        self.trace.sockets = {
            LISTENER: Socket(LISTENER, "inet", "stream", local=SERVER, is_listener=True),
            SENDER: Socket(SENDER, "inet", "stream", local=CLIENT, peer=SERVER),
            READER: Socket(READER, "inet", "stream", local=SERVER, peer=CLIENT, accepted_from=LISTENER),
        }
        self.tracker = SocketStateTracker(self.trace)
        self._numbers = itertools.count(1)

    def call(self, name: str, socket: int, size: int = 0, **fields: object) -> None:
        process = 2 if socket == SENDER else 1
        number = next(self._numbers)
        call = Call(number, process, process, name, number, number, result=size, socket=socket, size=size)
        for field, value in fields.items():
            setattr(call, field, value)
        self.tracker.add(Point(call))
        self.tracker.add(Point(call, True))

    def packet(self, flags: str, offset: int = 0, size: int = 0, *, back: bool = False,
               receiver: int | None = READER, **fields: object) -> Packet:  # fmt: skip
        ends = (SERVER, CLIENT) if back else (CLIENT, SERVER)
        sockets = (READER, SENDER) if back else (SENDER, receiver)
        number = next(self._numbers)
        packet = Packet(
            number, number, "tcp", *ends, size, b"", tuple(flags.split()), offset=offset,
            sender=sockets[0], receiver=sockets[1],
        )  # fmt: skip
        for field, value in fields.items():
            setattr(packet, field, value)
        self.tracker.add(Point(packet))
        return packet

    def connect(self) -> None:
        self.call("listen", LISTENER)
        self.packet("SYN", receiver=LISTENER)
        self.packet("SYN ACK", back=True, acks=0)
        self.packet("ACK", receiver=LISTENER, acks=0)

    def state(self, socket: int) -> SocketState:
        found = self.tracker.state(socket)
        assert found is not None
        return found


@pytest.fixture
def story() -> Story:
    made = Story()
    made.connect()
    return made


def test_listener_has_a_queue_until_accept(story: Story) -> None:
    assert (story.state(LISTENER).tcp, story.state(LISTENER).queued) == ("LISTEN", 1)
    story.call("accept4", LISTENER, created_id=READER)
    assert story.state(LISTENER).queued == 0
    assert story.state(READER).tcp == story.state(SENDER).tcp == "ESTABLISHED"


def test_bytes_are_unacknowledged_then_unread_then_received(story: Story) -> None:
    story.packet("PSH ACK", 0, 5)
    assert (story.state(SENDER).sent, story.state(SENDER).unacknowledged, story.state(READER).unread) == (
        5, 5, 5,
    )  # fmt: skip
    story.packet("ACK", back=True, acks=5)
    story.call("sendto", SENDER, 5)
    assert (story.state(SENDER).sent, story.state(SENDER).unacknowledged) == (5, 0)
    story.call("recvfrom", READER, 3)
    assert (story.state(READER).received, story.state(READER).unread) == (3, 2)
    story.call("recvfrom", READER, 2, flags=frozenset({"MSG_PEEK"}))
    assert story.state(READER).unread == 2


def test_bytes_after_a_gap_arrive_when_it_is_filled(story: Story) -> None:
    story.packet("ACK", 0, 10, lost="loss", reaches="b")
    story.packet("ACK", 10, 10)
    story.packet("ACK", 30, 10)
    assert (story.state(SENDER).sent, story.state(READER).unread) == (40, 0)
    story.packet("ACK", 0, 10, resent=True)
    assert story.state(READER).unread == 20
    story.packet("ACK", 20, 10)
    assert story.state(READER).unread == 40


def test_packet_on_a_wire_arrives_at_its_second_point(story: Story) -> None:
    packet = story.packet("ACK", 0, 10, reaches="b")
    assert (story.state(SENDER).unacknowledged, story.state(READER).unread) == (10, 0)
    story.tracker.add(Point(packet, True))
    assert story.state(READER).unread == 10


def test_acknowledged_fin_is_no_byte(story: Story) -> None:
    story.packet("FIN ACK", 0, 0)
    story.packet("ACK", back=True, acks=1)
    assert (story.state(SENDER).tcp, story.state(SENDER).unacknowledged) == ("FIN-WAIT-2", 0)
    assert story.state(READER).tcp in ("", "CLOSE-WAIT")


def test_close_of_the_last_descriptor_is_seen(story: Story) -> None:
    assert not story.state(SENDER).is_closed
    story.call("close", SENDER)
    assert story.state(SENDER).is_closed
    story.call("close", LISTENER)
    assert story.state(LISTENER).tcp == "CLOSED"


def test_without_packets_unread_bytes_are_those_of_the_calls_at_the_other_end() -> None:
    story = Story()
    story.call("accept4", LISTENER, created_id=READER)
    story.call("sendto", SENDER, 9)
    story.call("recvfrom", READER, 4)
    assert (story.state(READER).unread, story.state(SENDER).unacknowledged) == (5, None)


class NotSearched(dict[int, Socket]):
    """Sockets of a trace that has many: they are found by number only."""

    def values(self) -> NoReturn:
        raise AssertionError("all sockets are searched")

    __iter__ = items = values


def test_peer_is_found_without_a_search_of_all_sockets() -> None:
    story = Story()
    story.trace.sockets = NotSearched(story.trace.sockets)
    story.call("accept4", LISTENER, created_id=READER)
    story.call("sendto", SENDER, 9)
    assert story.state(READER).unread == 9


@pytest.mark.parametrize("first", [SENDER, READER])
def test_unix_peer_is_found_by_inode_whichever_end_is_used_first(first: int) -> None:
    story = Story()
    story.trace.sockets[SENDER] = Socket(SENDER, "unix", "stream", inode=70, peer_inode=71)
    story.trace.sockets[READER] = Socket(READER, "unix", "stream", inode=71)
    for socket in (first, SENDER + READER - first):
        story.call("sendto", socket, 9)
    story.call("recvfrom", READER, 4)
    assert (story.state(READER).unread, story.state(SENDER).unread) == (5, 9)


def test_next_connection_from_the_same_port_has_a_peer_of_its_own() -> None:
    story = Story()
    story.call("accept4", LISTENER, created_id=READER)
    story.call("sendto", SENDER, 9)
    for socket in (SENDER, READER):
        story.call("close", socket)
        story.trace.sockets[socket + 10] = replace(story.trace.sockets[socket], number=socket + 10)
    story.call("sendto", SENDER + 10, 3)
    story.call("accept4", LISTENER, created_id=READER + 10)
    assert (story.state(READER).unread, story.state(READER + 10).unread) == (9, 3)


def test_sockets_that_are_remembered_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_states, "MAX_SOCKETS", 8)
    story = Story()
    for number in range(10, 60):
        client, server = (SocketAddress("127.0.0.1", each) for each in (number, 12000))
        ends = (client, server) if number % 2 else (server, SocketAddress("127.0.0.1", number + 1))
        story.trace.sockets[number] = Socket(number, "inet", "stream", local=ends[0], peer=ends[1])
        story.call("sendto", number, 1)
        if number % 3:
            story.call("close", number)
    sizes = {name: len(value) for name, value in vars(story.tracker).items() if isinstance(value, dict | set)}
    del sizes["changed"]  # its reader clears it
    assert max(sizes.values()) <= 9, sizes


def test_datagrams_are_counted() -> None:
    story = Story()
    for each in (SENDER, READER):
        story.trace.sockets[each].kind = "datagram"
    for _ in range(3):
        packet = Packet(
            next(story._numbers), 1, "udp", CLIENT, SERVER, 100, b"", sender=SENDER, receiver=READER
        )
        story.tracker.add(Point(packet))
    story.call("recvfrom", READER, 10)
    assert (story.state(READER).received, story.state(READER).unread) == (1, 2)
    assert story.state(SENDER).sent == 3
    assert [each.socket for each in story.tracker.states()] == [READER]
