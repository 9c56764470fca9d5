"""Two runs are aligned, and what differs is marked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bothends.trace.comparison import MAX_STEPS, RunStep, StepPair, compare, sequence
from bothends.trace.model import (
    Call,
    Packet,
    Point,
    ProcessEvent,
    Socket,
    SocketAddress,
    Trace,
    TracedProcess,
    TraceEvent,
)
from tests.trace.test_query import echo_trace, run_query, saved


def steps(*texts: str, lane: str = "client") -> list[RunStep]:
    return [RunStep(lane, text, at, None, at) for at, text in enumerate(texts)]


def shown(pairs: list[StepPair]) -> list[tuple[str, str, str]]:
    return [
        (each.difference, each.first.text if each.first else "", each.second.text if each.second else "")
        for each in pairs
    ]


def test_equal_runs_have_no_difference() -> None:
    run = steps("a(1)", "b(2)")
    assert shown(compare(run, run)) == [("same", "a(1)", "a(1)"), ("same", "b(2)", "b(2)")]


def test_step_that_is_added_stands_alone_and_moves_nothing() -> None:
    pairs = compare(steps("a(1)", "c(3)"), steps("a(1)", "b(2)", "c(3)"))
    assert shown(pairs) == [("same", "a(1)", "a(1)"), ("second", "", "b(2)"), ("same", "c(3)", "c(3)")]
    pairs = compare(steps("a(1)", "b(2)", "c(3)"), steps("a(1)", "c(3)"))
    assert shown(pairs)[1] == ("first", "b(2)", "")


def test_steps_of_the_same_kind_are_changed_ones() -> None:
    pairs = compare(steps("recv(3) = 1", "close(3)"), steps("send(3)", "recv(3) = 2", "close(3)"))
    assert shown(pairs)[:2] == [("second", "", "send(3)"), ("changed", "recv(3) = 1", "recv(3) = 2")]
    assert shown(pairs)[2:] == [("same", "close(3)", "close(3)")]


def test_offset_that_is_shifted_is_a_change_of_the_same_packet() -> None:
    first = steps('PSH 0-5 "hello"', 'PSH 5-9 "ends"')
    second = steps('PSH 0-5 "hello"', 'PSH 5-7 "to"', 'PSH 7-11 "ends"')
    assert [each[0] for each in shown(compare(first, second))] == ["same", "second", "changed"]


def test_lanes_are_compared_each_with_itself() -> None:
    first = steps("a(1)", lane="server") + steps("b(2)")
    second = steps("b(2)") + steps("a(1)", lane="server")
    assert {each.difference for each in compare(first, second)} == {"same"}
    assert [each.lane for each in compare(first, second)] == ["server", "client"]
    assert [each.difference for each in compare(first, steps("b(2)"))] == ["first", "same"]


def run_of(port: int, pid: int, *, lost: str = "", order: int = 1) -> Trace:
    """Return a run of a client that connects from a port, sends, forks and exits."""
    trace = Trace()
    here, there = SocketAddress("127.0.0.1", port), SocketAddress("127.0.0.1", 12000)
    trace.processes = {1: TracedProcess(1, pid, "client"), 2: TracedProcess(2, pid + 1, "server")}
    trace.sockets = {
        1: Socket(1, "inet", "stream", local=here, peer=there),
        2: Socket(2, "inet", "stream", local=there, is_listener=True),
    }
    events: list[TraceEvent] = [
        Call(1, 1, pid, "connect", 10, 20, result=0, descriptor=3, socket=1, address=there),
        Packet(2, 11, "tcp", here, there, 0, b"", ("SYN",), sender=1, receiver=2),
        Call(3, 2, pid + 1, "accept", 12 + order, 30, result=4, descriptor=3, socket=2, address=here),
        Packet(4, 13, "tcp", there, here, 0, b"", ("ACK",), sender=None, receiver=1),
        Packet(5, 14, "tcp", here, there, 3, b"abc", ("PSH", "ACK"), offset=0, sender=1, lost=lost),
        Call(6, 1, pid, "fork", 40, 41, result=pid + 7),
        Call(7, 1, pid, "getsockopt", 42, 43, ("3",), result=0, descriptor=3, socket=1),
        ProcessEvent(8, 50, 1, "ended", "exit status 0"),
    ]
    for event in events:
        trace.add(Point(event))
    return trace


def test_numbers_of_the_kernel_are_no_difference() -> None:
    first, second = (sequence(run_of(port, pid)) for port, pid in ((40001, 100), (50002, 200)))
    assert {each.difference for each in compare(first, second)} == {"same"}
    texts = [each.text for each in first]
    assert "connect(3, 127.0.0.1:12000) = 0" in texts
    assert "accept(3) = 4 from 127.0.0.1:PORT" in texts
    assert "fork() = PID" in texts
    assert not any("getsockopt" in text or text.startswith("ACK") for text in texts)
    assert list(dict.fromkeys(each.lane for each in first)) == ["client", "client → server", "server"]


def test_lost_packet_is_a_difference() -> None:
    pairs = compare(sequence(run_of(40001, 1)), sequence(run_of(40001, 1, lost="loss")))
    [changed] = [each for each in pairs if each.difference != "same"]
    assert changed.second is not None
    assert changed.second.text.endswith("lost: loss")


def test_long_runs_are_cut() -> None:
    trace = echo_trace(MAX_STEPS)
    assert (
        max(sum(each.lane == lane for each in sequence(trace)) for lane in ("client", "server")) == MAX_STEPS
    )


@pytest.mark.parametrize("as_json", [False, True])
def test_command_line(tmp_path: Path, as_json: bool) -> None:
    paths = [str(saved(echo_trace(count), tmp_path / f"{count}.trace")) for count in (2, 3)]
    if as_json:
        answer = json.loads(run_query(paths[0], "--compare", paths[1], "--json").stdout)
        rows = [row for row in answer["rows"] if row["difference"] != "same"]
        assert {row["difference"] for row in rows} == {"second"}
        assert rows[0]["first_text"] is None
        assert "round trip 00002" in rows[0]["second_text"]
        page = (Path(__file__).parents[2] / "docs" / "reference" / "query.md").read_text(encoding="utf-8")
        assert [key for key in rows[0] if f"`{key}`" not in page] == []
    else:
        done = run_query(paths[0], "--compare", paths[1])
        assert done.stdout.startswith("client: 4 the same, 2 differ\n")
        assert "none differs" in run_query(paths[0], "--compare", paths[0]).stdout
        assert run_query(paths[0], "calls", "--compare", paths[1]).returncode == 2
        assert run_query(paths[0], "--compare", str(tmp_path / "none")).returncode == 1
