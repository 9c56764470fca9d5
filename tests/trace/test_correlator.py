"""Causal links of sends that fail or send less than they were given."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest

from bothends.trace.correlation.correlator import Correlator
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
