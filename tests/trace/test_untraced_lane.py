"""The lane of what is not traced: its ends of packets, and what is said of it."""

from __future__ import annotations

from bothends.trace.model import Call, Packet, Point, Socket, SocketAddress, Trace, TracedProcess
from bothends.trace.rendering.layout import Arrow, Cell, Layout, Row

HERE, THERE = SocketAddress("127.0.0.1", 12000), SocketAddress("127.0.0.1", 40000)


def rows(untraced: str) -> list[Row]:
    trace = Trace()
    trace.processes[1] = TracedProcess(1, 100, "server")
    trace.sockets[1] = Socket(1, "inet", "stream", local=HERE, peer=THERE)
    layout = Layout(trace, roles=["server"], untraced=untraced)
    call = Call(1, 1, 100, "recv", 1000, descriptor=3, socket=1)
    arrives = Packet(2, 3000, "tcp", THERE, HERE, 2, b"hi", ("PSH", "ACK"), receiver=1)
    leaves = Packet(3, 4000, "tcp", HERE, THERE, 0, b"", ("ACK",), sender=1)
    found = [*layout.rows(Point(call)), *layout.untraced_row(2000, "client 1: sends")]
    for each in (arrives, leaves):
        found += layout.rows(Point(each))
    return [each for each in found if not each.is_header and each.at is not None]


def test_lane_of_the_untraced_has_its_rows_and_its_ends_of_packets() -> None:
    call, said, arrives, leaves = rows("checker")
    assert call.cells[0].lane == 0
    assert (said.at, said.cells, said.event) == (1000, (Cell(1, "client 1: sends"),), None)
    assert arrives.arrow == Arrow(1, 0, 'PSH ACK 0-2 "hi"', "data")
    assert leaves.arrow is not None
    assert (leaves.arrow.from_lane, leaves.arrow.to_lane) == (0, 1)


def test_without_that_lane_such_a_packet_is_in_the_lane_of_its_other_end() -> None:
    found = rows("")
    assert [each.arrow for each in found] == [None] * 3
    assert found[1].cells[0].text.startswith("◀── PSH ACK")
