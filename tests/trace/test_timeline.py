"""Causes precede effects, for any arrival order and any difference between clocks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from bothends.trace.correlation.correlator import Correlator
from bothends.trace.correlation.timeline import Timeline, key, key_of
from bothends.trace.model import Call, Packet, Point, Socket, SocketAddress, Trace, TracedProcess

CLIENT, SERVER = SocketAddress("127.0.0.1", 40000), SocketAddress("127.0.0.1", 12000)
MICROSECOND = 1000


class History:
    """A conversation between a client and a server, as two sources report it.

    `causes` are pairs of keys: the first must precede the second.
    """

    def __init__(self, messages: list[tuple[bool, int]], jitter: Iterator[int]) -> None:
        self.trace = Trace()
        self.calls: list[Point] = []
        self.packets: list[Point] = []
        self.causes: set[tuple[int, int]] = set()
        self._numbers = itertools.count(1)
        self._jitter = jitter
        self._now = 1_000_000_000
        for number in (1, 2):
            role = "server" if number == 1 else "client"
            self.trace.processes[number] = TracedProcess(number, 100 + number, role)
        self.trace.sockets[1] = Socket(1, "inet", "stream", local=SERVER, is_listener=True)
        self.trace.sockets[2] = Socket(2, "inet", "stream", local=CLIENT, peer=SERVER)
        self.trace.sockets[3] = Socket(3, "inet", "stream", local=SERVER, peer=CLIENT, accepted_from=1)
        self._sequence = {2: 4_294_967_290, 3: 5000}  # the client's wraps around soon
        self._handshake()
        for from_client, size in messages:
            self._send(2 if from_client else 3, size)
        self._close()

    def _tick(self) -> int:
        self._now += 50 * MICROSECOND
        return self._now

    def _call(self, name: str, process: int, socket: int, **fields: object) -> Call:
        call = Call(
            next(self._numbers), process, 100 + process, name, self._tick(), socket=socket, descriptor=3
        )
        for field, value in fields.items():
            setattr(call, field, value)
        return call

    def _packet(self, sender: int, size: int = 0, *flags: str) -> Packet:
        source, destination = (CLIENT, SERVER) if sender == 2 else (SERVER, CLIENT)
        number, at = next(self._numbers), self._tick() + next(self._jitter)
        packet = Packet(number, at, "tcp", source, destination, size, b"x" * size, flags, interface="lo")
        packet.sequence = self._sequence[sender] & 0xFFFFFFFF
        packet.acknowledged = self._sequence[5 - sender] & 0xFFFFFFFF
        self._sequence[sender] += size + ("SYN" in flags) + ("FIN" in flags)
        if self.packets:
            self.causes.add((key_of(self.packets[-1]), key_of(Point(packet))))
        self.packets.append(Point(packet))
        return packet

    def _start(self, call: Call) -> None:
        self.calls.append(Point(call))

    def _end(self, call: Call, *after: Packet) -> None:
        call.until = self._tick() + next(self._jitter)
        self.calls.append(Point(call, is_end=True))
        for packet in after:
            self.causes.add((key_of(Point(packet)), key(call.number, True)))

    def _handshake(self) -> None:
        accept = self._call("accept", 1, 1, result=4, created_id=3, address=CLIENT)
        self._start(accept)
        connect = self._call("connect", 2, 2, result=0, address=SERVER)
        self._start(connect)
        syn = self._packet(2, 0, "SYN")
        self.causes.add((key(connect.number), key_of(Point(syn))))
        syn_ack = self._packet(3, 0, "SYN", "ACK")
        ack = self._packet(2, 0, "ACK")
        self._end(connect, syn_ack)
        self._end(accept, syn, ack)

    def _send(self, sender: int, size: int) -> None:
        receiver = 5 - sender
        send = self._call(
            "send", sender % 2 + 1 if sender == 3 else 2, sender, result=size, requested=size, size=size
        )
        send.process, send.thread = (2, 102) if sender == 2 else (1, 101)
        receive = self._call("recv", 1, receiver, result=size, requested=1000, size=size)
        receive.process, receive.thread = (1, 101) if sender == 2 else (2, 102)
        self._start(receive)
        self._start(send)
        packet = self._packet(sender, size, "ACK")
        self.causes.add((key(send.number), key_of(Point(packet))))
        self._end(send)
        self._end(receive, packet)

    def _close(self) -> None:
        receive = self._call("recv", 1, 3, result=0, requested=1000)
        self._start(receive)
        close = self._call("close", 2, 2, result=0)
        self._start(close)
        fin = self._packet(2, 0, "FIN", "ACK")
        self.causes.add((key(close.number), key_of(Point(fin))))
        self._end(close)
        self._end(receive, fin)


JITTER = st.lists(st.integers(-400, 400), min_size=1, max_size=20)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 20)), max_size=8),
    JITTER,
    st.randoms(use_true_random=False),
)
def test_timeline_keeps_causality_for_any_arrival_order(messages, jitter, random) -> None:  # type: ignore[no-untyped-def]
    history = History(messages, (each * MICROSECOND for each in itertools.cycle(jitter)))
    timeline = Timeline()
    correlator = Correlator(history.trace, timeline)
    # The calls of each thread arrive in order, and so do the packets. Their interleaving is arbitrary.
    streams = [
        [each for each in history.calls if each.event.thread == 101],  # type: ignore[union-attr]
        [each for each in history.calls if each.event.thread == 102],  # type: ignore[union-attr]
        list(history.packets),
    ]
    while any(streams):
        correlator.add(random.choice([each for each in streams if each]).pop(0))
    order = [key_of(point) for point in timeline.pop_ready()]
    assert sorted(order) == sorted(key_of(point) for point in history.calls + history.packets)
    position = {number: index for index, number in enumerate(order)}
    violated = [pair for pair in history.causes if position[pair[0]] > position[pair[1]]]
    assert not violated
    assert timeline.violations == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 20)), max_size=8))
def test_correlator_links_every_byte_from_send_to_receive(messages: list[tuple[bool, int]]) -> None:
    history = History(messages, itertools.repeat(0))
    correlator = Correlator(history.trace, Timeline())
    for point in sorted(history.calls + history.packets, key=lambda each: each.at):
        correlator.add(point)
    for point in history.packets:
        packet = point.event
        assert isinstance(packet, Packet)
        if packet.size:
            causes = [link.kind for link in history.trace.causes_of(packet.number)]
            effects = [link.kind for link in history.trace.effects_of(packet.number)]
            assert causes == ["carries"]
            assert effects == ["feeds"]
            assert packet.offset is not None
            assert 0 <= packet.offset < 1000  # although sequence numbers wrap around


def call(number: int, thread: int, at: int) -> Point:
    return Point(Call(number, 1, thread, "read", at))


def test_timeline_unrelated_points_are_sorted_by_time() -> None:
    timeline = Timeline()
    for point in (call(1, 1, 30), call(2, 2, 10), call(3, 3, 20)):
        timeline.add(point)
    assert [each.event.number for each in timeline.pop_ready()] == [2, 3, 1]


def test_timeline_pop_ready_stops_at_until() -> None:
    timeline = Timeline()
    timeline.add(call(1, 1, 10))
    timeline.add(call(2, 2, 30))
    assert [each.event.number for each in timeline.pop_ready(20)] == [1]
    assert [each.event.number for each in timeline.pop_ready(30)] == [2]


def test_timeline_effect_waits_for_unknown_cause() -> None:
    timeline = Timeline()
    timeline.add(call(2, 2, 10))
    timeline.add_constraint(key(1), key(2))
    assert list(timeline.pop_ready(100)) == []
    timeline.add(call(1, 1, 50))
    assert [each.event.number for each in timeline.pop_ready(100)] == [1, 2]


def test_timeline_cycle_is_cut_and_counted() -> None:
    timeline = Timeline()
    timeline.add(call(1, 1, 10))
    timeline.add(call(2, 2, 20))
    timeline.add_constraint(key(1), key(2))
    timeline.add_constraint(key(2), key(1))
    assert [each.event.number for each in timeline.pop_ready()] == [1, 2]
    assert timeline.violations == 1


def test_correlator_wrong_syn_guess_is_undone() -> None:
    """Of two simultaneous connects, the SYN is attributed to the first, until the labels show the ports."""
    trace, server = Trace(), SocketAddress("127.0.0.1", 80)
    correlator = Correlator(trace, Timeline())
    correlator.has_packets = True
    first, second = SocketAddress("127.0.0.1", 40001), SocketAddress("127.0.0.1", 40002)
    for number in (1, 2):
        trace.sockets[number] = Socket(number, "inet", "stream")
    correlator.add(Point(Call(1, 1, 1, "connect", 10, socket=1, address=server)))
    correlator.add(Point(Packet(2, 12, "tcp", second, server, 0, b"", ("SYN",), 99)))
    assert trace.sockets[1].local == second
    for number, local, data in ((2, second, b"hello"), (1, first, b"again")):
        trace.sockets[number].set_connection(local, server)
        correlator.add(
            Point(Call(2 + number, 1, number, "sendto", 20, socket=number, requested=5, data=data))
        )
    correlator.add(Point(Packet(9, 22, "tcp", second, server, 5, b"hello", ("ACK",), 100)))
    assert [link.cause for link in trace.causes_of(9)] == [4]
