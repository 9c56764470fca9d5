"""Causal links at the edges: sends that fail or are short, segments out of order, a part that was lost."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest

from bothends.trace.capture.arguments import time_limit
from bothends.trace.correlation.correlator import Correlator
from bothends.trace.correlation.retransmissions import find_retransmissions
from bothends.trace.correlation.timeline import Timeline
from bothends.trace.model import Call, Packet, Point, Socket, SocketAddress, Trace, TracedProcess

CLIENT, SERVER = SocketAddress("127.0.0.1", 40000), SocketAddress("127.0.0.1", 12000)
FIRST = 100  # sequence number of the client's first byte


def correlate(*points: Point) -> Trace:
    """Return the trace of a client, socket 1, whose events are added in this order."""
    trace = Trace()
    trace.processes[1] = TracedProcess(1, 7, "client")
    trace.sockets[1] = Socket(1, "inet", "stream", local=CLIENT, peer=SERVER)
    correlator = Correlator(trace, Timeline())
    correlator.has_packets = True
    for point in (Point(Packet(90, 1, "tcp", CLIENT, SERVER, 0, b"", ("SYN",), FIRST - 1)), *points):
        correlator.add(point)
    return trace


def segment(number: int, start: int, end: int) -> Point:
    """A packet with the client's bytes from `start` up to `end`."""
    size = end - start
    return Point(
        Packet(number, 100 + number, "tcp", CLIENT, SERVER, size, b"x" * size, ("ACK",), FIRST + start)
    )


def send(number: int, requested: int, thread: int = 7) -> Call:
    return Call(
        number, 1, thread, "sendto", 10 + number, socket=1, requested=requested, data=b"x" * requested
    )


def ended(call: Call, sent: int, error: str = "") -> Point:
    call.until, call.result, call.size, call.error = call.at + 50, -1 if error else sent, sent, error
    return Point(call, is_end=True)


def causes(trace: Trace, numbers: Iterable[int]) -> dict[int, list[int]]:
    return {number: sorted(link.cause for link in trace.causes_of(number)) for number in numbers}


@pytest.mark.parametrize("name", ["sendto", "write", "recvfrom", "read"])
@pytest.mark.parametrize("error", ["ECONNRESET", "EPIPE"])
@pytest.mark.parametrize("packet_first", [False, True])
def test_failed_call_is_linked_to_the_reset(name: str, error: str, packet_first: bool) -> None:
    rst = Point(Packet(5, 15, "tcp", SERVER, CLIENT, 0, b"", ("RST",), 1))
    call = Call(
        3, 1, 7, name, 20, socket=1, requested=5, data=b"x" * 5 if name in ("sendto", "write") else b""
    )
    start, end = Point(call), ended(call, 0, error)
    trace = correlate(*((rst, start, end) if packet_first else (start, end, rst)))
    assert [(link.cause, link.kind) for link in trace.causes_of(3)] == [(5, "resets")]


def test_call_that_failed_otherwise_is_not_linked_to_the_reset() -> None:
    call = send(3, 5)
    rst = Point(Packet(5, 15, "tcp", SERVER, CLIENT, 0, b"", ("RST",), 1))
    assert causes(correlate(rst, Point(call), ended(call, 0, "EAGAIN")), [3]) == {3: []}


@pytest.mark.parametrize("first_sent", [0, 1, 60, 100])
@pytest.mark.parametrize("end_first", [True, False])
def test_bytes_of_overlapping_short_sends_are_those_of_their_packets(
    first_sent: int, end_first: bool
) -> None:
    """Two threads send at once, the first less than it was given; then one of them sends again."""
    one, two, three = send(1, 100), send(2, 50, 8), send(3, 30)
    ends = [ended(one, first_sent, "EAGAIN" if not first_sent else ""), ended(two, 50)]
    packets = [
        segment(10, 0, first_sent),
        segment(11, first_sent, first_sent + 50),
        segment(12, first_sent + 50, first_sent + 80),
    ][0 if first_sent else 1 :]
    started = [Point(one), Point(two)]
    trace = correlate(
        *started, *(ends if end_first else ends[::-1]), Point(three), ended(three, 30), *packets
    )
    expected = {10: [1], 11: [2], 12: [3]}
    assert causes(trace, [each.event.number for each in packets]) == {
        each.event.number: expected[each.event.number] for each in packets
    }


def test_one_segment_of_two_short_sends_has_both_as_causes() -> None:
    one, two, three = send(1, 100), send(2, 50, 8), send(3, 30)
    trace = correlate(
        Point(one), Point(two), ended(one, 60), ended(two, 20), Point(three), ended(three, 30),
        segment(10, 0, 80), segment(11, 80, 110),
    )  # fmt: skip
    assert causes(trace, [10, 11]) == {10: [1, 2], 11: [3]}


@pytest.mark.parametrize("sizes", list(itertools.permutations([1, 40, 100])))
def test_position_after_several_short_sends(sizes: tuple[int, ...]) -> None:
    calls = [send(number, 100) for number in range(1, 4)]
    points: list[Point] = []
    for call, size in zip(calls, sizes, strict=True):
        points += [Point(call), ended(call, size)]
    edges = [0, *itertools.accumulate(sizes)]
    packets = [segment(10 + n, start, end) for n, (start, end) in enumerate(itertools.pairwise(edges))]
    assert causes(correlate(*points, *packets), [10, 11, 12]) == {10: [1], 11: [2], 12: [3]}


def test_close_and_not_shutdown_of_reading_sends_the_fin() -> None:
    shutdown = Call(1, 1, 7, "shutdown", 10, 11, ("3", "SHUT_RD"), 0, socket=1)
    close = Call(2, 1, 7, "close", 20, 21, ("3",), 0, socket=1)
    fin = Point(Packet(10, 25, "tcp", CLIENT, SERVER, 0, b"", ("FIN", "ACK"), FIRST))
    both = [Point(shutdown), Point(shutdown, is_end=True), Point(close), Point(close, is_end=True)]
    assert causes(correlate(*both, fin), [10]) == {10: [2]}


@pytest.mark.parametrize("first", [FIRST, 10, 2**32 - 20])
def test_offsets_of_segments_out_of_order_are_those_from_the_first_one(first: int) -> None:
    """Without a SYN the first captured packet begins the stream; earlier bytes may follow it."""
    trace = Trace()
    correlator = Correlator(trace, Timeline())
    for number, start in ((1, 0), (2, -50), (3, 100), (4, 50)):
        sequence = (first + start) % 2**32
        packet = Packet(number, number, "tcp", CLIENT, SERVER, 50, b"x" * 50, ("ACK",), sequence)
        correlator.add(Point(packet))
        assert packet.offset == start


@pytest.mark.parametrize(
    ("arrived", "was_lost"),
    [
        ([(0, 100), (100, 200)], False),
        ([(100, 200)], True),
        ([(0, 100)], True),
        ([(0, 120), (90, 200)], False),
    ],
)
def test_retransmission_of_two_segments_of_which_one_may_have_arrived(
    arrived: list[tuple[int, int]], was_lost: bool
) -> None:
    packets = [
        Packet(
            number,
            number,
            "tcp",
            CLIENT,
            SERVER,
            end - start,
            b"",
            ("ACK",),
            offset=start,
            reaches="server",
            until=number + 5,
            lost="" if (start, end) in arrived else "loss",
        )
        for number, (start, end) in enumerate(sorted({(0, 100), (100, 200), *arrived}), 1)
        if (start, end) in arrived or len(arrived) < 2
    ]
    again = Packet(
        9, 90, "tcp", CLIENT, SERVER, 200, b"", ("ACK",), offset=0, reaches="server", until=95, resent=True
    )
    [found], _ = find_retransmissions([*packets, again])
    assert found.was_lost is was_lost


@pytest.mark.parametrize(
    ("argument", "nanoseconds"),
    [
        ("{tv_sec=1, tv_nsec=500000000}", 1_500_000_000),
        ("{tv_sec=1, tv_usec=500000}", 1_500_000_000),
        ("250", 250_000_000),
        ("-1", None),
        ("NULL", None),
    ],
)
def test_time_limit_units(argument: str, nanoseconds: int | None) -> None:
    assert time_limit(argument) == nanoseconds
