"""What repeats is folded, what differs is drawn; many lanes keep to the width; the summary."""

from __future__ import annotations

import itertools
import re
from typing import Final

import pytest

from bothends.trace.findings import run_rules
from bothends.trace.model import (
    Call,
    CausalLink,
    Packet,
    Point,
    ProcessEvent,
    Socket,
    SocketAddress,
    Trace,
    TracedProcess,
)
from bothends.trace.rendering.folding import DRAWN_REPEATS, FoldedRows, Unit
from bothends.trace.rendering.layout import Filter, Layout, folded_events, rows_of
from bothends.trace.rendering.svg import render_svg
from bothends.trace.rendering.terminal import Painter
from bothends.trace.summary import TraceSummary, connection_rows, percentile, process_table

SERVER: Final = SocketAddress("127.0.0.1", 12000)
BEGIN: Final = 1_795_255_220_000_000_000


class Echo:
    """A server and clients, each with a connection. Each round trip takes 60 us."""

    def __init__(self, clients: int = 1) -> None:
        self.trace = Trace()
        self.trace.processes[1] = TracedProcess(1, 100, "server")
        self.numbers = itertools.count(1)
        self.at = BEGIN
        for client in range(clients):
            role = "client" if client == 0 else f"client {client + 1}"
            self.trace.processes[2 + client] = TracedProcess(2 + client, 200 + client, role)
            address = SocketAddress("127.0.0.1", 40000 + client)
            near, far = 2 * client + 1, 2 * client + 2
            self.trace.sockets[near] = Socket(near, "inet", "stream", local=address, peer=SERVER)
            self.trace.sockets[far] = Socket(
                far, "inet", "stream", local=SERVER, peer=address, accepted_from=99
            )

    def call(
        self, process: int, socket: int, name: str, data: bytes, *, late: int = 0, start_only: bool = False
    ) -> Call:
        """Add a call, between whose start and end nothing happens."""
        known = self.trace.processes[process]
        call = Call(
            next(self.numbers), process, known.pid, name, self.at, None, ("3",), descriptor=3, socket=socket,
            requested=len(data) if name == "sendto" else 100, data=data,
        )  # fmt: skip
        self.trace.add(Point(call))
        if not start_only:
            self.at += 10_000 + late
            call.until, call.result, call.size = self.at, len(data), len(data)
            self.trace.add(Point(call, True))
        return call

    def packet(self, sender: int, receiver: int, data: bytes, *flags: str, resent: bool = False) -> Packet:
        source, destination = self.trace.sockets[sender], self.trace.sockets[receiver]
        assert source.local is not None
        assert destination.local is not None
        packet = Packet(
            next(self.numbers), self.at, "tcp", source.local, destination.local, len(data), data,
            flags or ("PSH", "ACK"), sender=sender, receiver=receiver, resent=resent, offset=0, acks=0,
        )  # fmt: skip
        self.trace.add(Point(packet))
        return packet

    def round_trip(self, number: int, client: int = 0, *, late: int = 0, bare: bool = False) -> None:
        data = b"number %05d" % number
        near, far, process = 2 * client + 1, 2 * client + 2, 2 + client
        send = self.call(process, near, "sendto", data)
        packet = self.packet(near, far, data)
        if bare:
            self.packet(far, near, b"", "ACK")
        receive = self.call(1, far, "recvfrom", data)
        self.trace.link(CausalLink(send.number, packet.number, "carries"))
        self.trace.link(CausalLink(packet.number, receive.number, "feeds"))
        self.at += late
        send = self.call(1, far, "sendto", data)
        packet = self.packet(far, near, data)
        receive = self.call(process, near, "recvfrom", data, late=late)
        self.trace.link(CausalLink(send.number, packet.number, "carries"))
        self.trace.link(CausalLink(packet.number, receive.number, "feeds"))

    def lines(self, width: int = 120, *, fold: bool = True) -> list[str]:
        painter = Painter(width, colour=False)
        return [line for row in rows_of(self.trace, fold=fold) for line in painter.lines(row)]

    def folds(self) -> list[str]:
        return [row.fold for row in rows_of(self.trace, fold=True) if row.fold]


def test_short_run_is_drawn_as_it_is() -> None:
    echo = Echo()
    for number in range(DRAWN_REPEATS):
        echo.round_trip(number)
    assert echo.lines() == echo.lines(fold=False)


def test_round_trips_are_folded() -> None:
    echo = Echo()
    for number in range(1000):
        echo.round_trip(number, bare=number % 3 == 0)  # bare acknowledgements come when they come
    echo.call(2, 1, "close", b"")
    lines = echo.lines()
    (fold,) = [line for line in lines if "more round trips" in line]
    found = re.search(r"… ([\d,]+) more round trips like this one, 40 us ┊", fold)
    assert found is not None
    drawn = sum("recvfrom" in line for line in lines) // 2
    assert int(found[1].replace(",", "")) + drawn == 1000
    assert drawn <= DRAWN_REPEATS + 2
    assert "close(3)" in lines[-1]
    assert len(echo.lines(fold=False)) > 4000


def test_what_differs_is_drawn_with_its_round_trip() -> None:
    echo = Echo()
    for number in range(300):
        echo.round_trip(number)
    echo.call(2, 1, "sendto", b"number 00300")
    echo.packet(1, 2, b"number 00300", resent=True)
    for number in range(301, 600):
        echo.round_trip(number)
    lines = echo.lines()
    assert len([line for line in lines if "more round trips" in line]) == 2
    at = next(index for index, line in enumerate(lines) if "(resent)" in line)
    assert 'sendto(3, "number 00300", 12)' in lines[at - 1]
    assert "more round trips" in lines[at - 2]


@pytest.mark.parametrize("late", [0, 2_000_000, 200_000_000])
def test_slow_round_trip_is_drawn(late: int) -> None:
    echo = Echo()
    for number in range(100):
        echo.round_trip(number, late=late if number == 60 else 0)
    lines = [line for line in echo.lines() if "number 00060" in line]
    assert bool(lines) == (late > 100_000_000)


def test_rows_of_an_unfinished_round_trip_are_drawn_at_the_end() -> None:
    echo = Echo()
    for number in range(50):
        echo.round_trip(number)
    echo.call(2, 1, "sendto", b"the last one")
    echo.packet(1, 2, b"the last one")
    echo.call(1, 2, "recvfrom", b"", start_only=True)
    lines = echo.lines()
    assert "recvfrom(3, 100) waits" in lines[-1]
    assert "the last one" in lines[-2]
    assert "more round trips" in lines[-4]


def test_idle_trace_draws_what_is_held() -> None:
    echo = Echo()
    layout = Layout(echo.trace, fold=True)
    for number in range(50):
        echo.round_trip(number)
    drawn = [row for point in echo.trace.points for row in layout.rows(point)]
    before = len(drawn)
    drawn += layout.pending()
    assert [row.fold for row in drawn[before:] if row.fold] == ["… 38 more round trips like this one, 40 us"]
    seen = len(echo.trace.points)
    echo.round_trip(50)  # after a pause the next ones are drawn
    later = [row for point in list(echo.trace.points)[seen:] for row in layout.rows(point)]
    assert any("number 00050" in cell.text for row in later for cell in row.cells)


def test_eof_loop_is_one_row() -> None:
    echo = Echo()
    for _ in range(16_000):
        echo.call(1, 2, "recvfrom", b"")
    (fold,) = echo.folds()
    assert fold.startswith("… 15,98")
    assert fold.endswith("more calls of recvfrom() like this one, 10 us each")
    assert len(echo.lines()) < 20


def test_interleaved_connections_are_folded_together() -> None:
    echo = Echo(10)
    for number in range(100):
        for client in range(10):
            echo.round_trip(number, client)
    (fold,) = echo.folds()
    assert fold.endswith("more round trips like these, 40 us, on 10 connections")


def test_varying_calls_are_not_folded() -> None:
    echo = Echo()
    for number in range(200):
        name = "sendto" if bin(number).count("1") % 2 else "recvfrom"  # the Thue-Morse sequence: no period
        echo.call(1, 2, name, b"x")
    assert not echo.folds()


def test_folded_events_are_those_that_are_not_drawn() -> None:
    echo = Echo(3)
    for number in range(60):
        for client in range(3):
            echo.round_trip(number, client)
    folded = folded_events(echo.trace, Filter())
    drawn = {row.event for row in rows_of(echo.trace, fold=True) if row.event is not None}
    assert not drawn & folded.keys()
    assert drawn | folded.keys() == {event.number for event in echo.trace.events()}
    layout = Layout(echo.trace, fold=True)
    remembered = layout.remember_folded()
    for point in echo.trace.points:
        assert list(layout.rows(point)) is not None
    assert list(layout.pending()) is not None
    assert remembered == folded


@pytest.mark.parametrize(
    ("units", "text"),
    [
        ([Unit("requests", 20_000, 1, "")], "1 more request like this one, answered in 20 us"),
        ([Unit("packets", 1_000_000, 1, "")] * 2, "2 more packets like this one, 1 ms apart"),
        (
            [Unit("calls", 900, 1, "read"), Unit("calls", 9_000_000, 2, "read")],
            "2 more calls of read() like these, 0 us to 9 ms each, on 2 connections",
        ),
        ([], "0 more rows like these"),
    ],
)
def test_text_of_a_fold(units: list[Unit], text: str) -> None:
    rows = FoldedRows()
    for unit in units:
        rows.add_unit(unit)
    assert rows.text() == text


def test_svg_has_the_folded_row() -> None:
    echo = Echo()
    for number in range(100):
        echo.round_trip(number)
    assert "more round trips like this one" in render_svg(rows_of(echo.trace, fold=True))


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_many_lanes_keep_to_the_width(width: int) -> None:
    echo = Echo(20)
    for client in range(20):
        echo.round_trip(client, client)
    lines = echo.lines(width)
    assert max(map(len, lines)) <= width
    assert any("client 20: recvfrom" in line for line in lines)
    assert any("server → client 20: PSH ACK" in line for line in lines)
    assert "●" in lines[-1] or width < 80


def test_summary_of_connections_and_processes() -> None:
    echo = Echo(2)
    for number in range(200):
        echo.round_trip(number, late=1_000_000 if number == 100 else 0)
    echo.round_trip(0, 1)
    echo.packet(1, 2, b"again", resent=True)
    summary = TraceSummary(echo.trace)
    first, second = connection_rows(summary)
    assert first == (
        "127.0.0.1:40000 → 127.0.0.1:12000", "800", "2,400", "2,400", "200", "40 us", "40 us", "40 us",
        "2.04 ms",
        "1", "1.01 ms",
    )  # fmt: skip
    assert second[1:5] == ("4", "12", "12", "1")
    headers, rows = process_table(summary)
    by_name = {row[0]: dict(zip(headers, row, strict=True)) for row in rows}
    assert by_name["client 200"]["waits for data"] == "3 ms"  # 200 times 10 us, and 1 ms
    assert by_name["client 200"]["sending"] == "2 ms"
    assert by_name["server 100"]["calls"] == "402"
    assert "sleeping" not in headers


def test_summary_of_a_server_alone() -> None:
    echo = Echo()
    for number in range(10):
        echo.call(1, 2, "recvfrom", b"request")
        echo.at += 5_000 * number
        echo.call(1, 2, "sendto", b"the answer")
    ((name, calls, sent, received, *trips),) = connection_rows(TraceSummary(echo.trace))
    assert (name, calls, sent, received) == ("127.0.0.1:40000 → 127.0.0.1:12000", "20", "70", "100")
    assert trips[:2] == ["10", "20 us"]


def test_percentile() -> None:
    assert [percentile(range(100), share) for share in (0, 0.5, 0.9, 1)] == [0, 49, 89, 99]
    assert percentile([7], 0.99) == 7


def test_unlinked_causes_do_not_matter() -> None:
    echo = Echo()
    for number in range(30):
        echo.round_trip(number)
    echo.trace.link(CausalLink(1, 10_000, "feeds"))
    assert len(echo.folds()) == 1


def test_sleeps_between_round_trips_are_folded() -> None:
    echo = Echo()
    for number in range(100):
        echo.round_trip(number)
        call = Call(next(echo.numbers), 2, 200, "nanosleep", echo.at, None, timeout_ns=3_000_000)
        echo.trace.add(Point(call))
        echo.at += 3_100_000
        call.until, call.result = echo.at, 0
        echo.trace.add(Point(call, True))
    lines = echo.lines(240)
    (fold,) = [line for line in lines if "more round trips" in line]
    assert "more calls of nanosleep() like these, 3.1 ms each" in fold
    drawn = sum("nanosleep(3 ms), after 3.1 ms" in line for line in lines)
    assert DRAWN_REPEATS <= drawn <= DRAWN_REPEATS + 2


class Visitors(Echo):
    """A client that asks on a connection of its own each time, and a server that may close late."""

    def __init__(self) -> None:
        super().__init__(0)
        self.trace.processes[2] = TracedProcess(2, 200, "client")
        self.trace.sockets[1] = Socket(1, "inet", "stream", local=SERVER, is_listener=True)
        self.late: list[tuple[int, int]] = []

    def visit(
        self, number: int, *, rounds: int = 1, closes: bool = True, error: str = "", late: int = 0
    ) -> None:
        near, far = 10 + 2 * number, 11 + 2 * number
        address = SocketAddress("127.0.0.1", 40_000 + number)
        self.trace.sockets[near] = Socket(near, "inet", "stream", local=address, peer=SERVER)
        self.trace.sockets[far] = Socket(far, "inet", "stream", local=SERVER, peer=address, accepted_from=1)
        created = self.call(2, near, "socket", b"xxx", start_only=True)
        self.at += 1000
        created.until, created.result, created.created_id = self.at, 3, near
        self.trace.add(Point(created, True))
        self.call(2, near, "connect", b"")
        for end, flags in ((near, ("SYN",)), (far, ("SYN", "ACK")), (near, ("ACK",))):
            self.packet(end, far if end == near else near, b"", *flags)
        accepted = self.call(1, 1, "accept4", b"four", start_only=True)
        self.at += 1000
        accepted.until, accepted.result, accepted.created_id = self.at, 4, far
        self.trace.add(Point(accepted, True))
        for _ in range(rounds):
            self.call(2, near, "sendto", b"ask")
            self.packet(near, far, b"ask")
            received = self.call(1, far, "recvfrom", b"ask", start_only=True)
            self.at += 1000 + late
            received.until, received.result, received.size = self.at, 3, 3
            if error:
                received.result, received.size, received.error = None, 0, error
            self.trace.add(Point(received, True))
            self.call(1, far, "sendto", b"answer")
            self.packet(far, near, b"answer")
            self.call(2, near, "recvfrom", b"answer")
        self.call(2, near, "close", b"")
        self.packet(near, far, b"", "FIN", "ACK")
        self.late.append((near, far))
        if closes:
            self.close_late()

    def close_late(self) -> None:
        for near, far in self.late:
            self.call(1, far, "close", b"")
            self.packet(far, near, b"", "FIN", "ACK")
        self.late.clear()


@pytest.mark.parametrize("overlap", [1, 3])
def test_connections_with_one_request_are_folded(overlap: int) -> None:
    visitors = Visitors()
    for number in range(120):
        visitors.visit(number, closes=number % overlap == overlap - 1)
    lines = visitors.lines()
    (fold,) = visitors.folds()
    found = re.search(r"… (\d+) more connections like this one, ", fold)
    assert found is not None
    drawn = sum("connect(3" in line for line in lines)
    assert int(found[1]) + drawn == 120
    assert DRAWN_REPEATS <= drawn <= DRAWN_REPEATS + 4


def test_a_connection_that_differs_is_drawn() -> None:
    visitors = Visitors()
    for number in range(40):
        visitors.visit(number)
    visitors.visit(40, error="ECONNRESET")
    for number in range(41, 80):
        visitors.visit(number)
    assert sum("ECONNRESET" in line for line in visitors.lines()) == 1
    first, second = visitors.folds()
    assert first.startswith("… 27 more connections")
    assert "more connections" in second


def test_a_slow_connection_is_drawn() -> None:
    visitors = Visitors()
    for number in range(60):
        visitors.visit(number, late=50_000_000 if number == 40 else 0)
    assert len(visitors.folds()) == 2
    assert any(line.startswith("  0.05") for line in visitors.lines())


def test_a_long_connection_is_no_visit() -> None:
    visitors = Visitors()
    for number in range(40):
        visitors.visit(number)
    visitors.visit(40, rounds=60)
    texts = visitors.folds()
    assert texts[0].startswith("… 27 more connections")
    assert any("more round trips" in each for each in texts[1:])


def test_dropped_events_are_no_mistake() -> None:
    """A call whose start was dropped is missing, even if the send that it waited for is there."""
    for kept in range(40, 60):
        echo = Echo()
        known = echo.trace
        echo.trace = Trace(max_points=kept)
        echo.trace.processes |= known.processes
        echo.trace.sockets |= known.sockets
        waiting = echo.call(1, 2, "recvfrom", b"", start_only=True)
        for number in range(20):
            data = b"%05d" % number
            send = echo.call(2, 1, "sendto", data)
            packet = echo.packet(1, 2, data)
            waiting.until, waiting.result, waiting.size, waiting.data = echo.at, 5, 5, data
            echo.trace.add(Point(waiting, True))
            echo.trace.link(CausalLink(send.number, packet.number, "carries"))
            echo.trace.link(CausalLink(packet.number, waiting.number, "feeds"))
            answer = echo.call(1, 2, "sendto", data)
            back = echo.packet(2, 1, data)
            waiting = echo.call(1, 2, "recvfrom", b"", start_only=True)
            received = echo.call(2, 1, "recvfrom", data)
            echo.trace.link(CausalLink(answer.number, back.number, "carries"))
            echo.trace.link(CausalLink(back.number, received.number, "feeds"))
        echo.trace.add(Point(ProcessEvent(9999, echo.at, 1, "ended", "exit status 0", 0)))
        echo.trace.freeze()
        assert echo.trace.dropped
        assert [each.rule for each in run_rules(echo.trace) if each.rule == "one-recv-per-message"] == []
