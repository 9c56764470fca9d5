"""`bothends query`: questions about a saved trace, as rows, as a table and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bothends.errors import UsageError
from bothends.trace.model import Call, CausalLink, Point, ProcessEvent, Socket, Trace, TracedProcess
from bothends.trace.query import QUESTIONS, Selection, ask
from bothends.trace.trace_file import TraceFileWriter
from tests.trace.test_trace_blocks import echo_trace as echo_of_datagrams
from tests.trace.test_trace_file import hostile_trace


def echo_trace(round_trips: int) -> Trace:
    """Return a trace of a client and a server whose socket was accepted."""
    trace = echo_of_datagrams(round_trips)
    trace.sockets[3] = Socket(3, "inet", "stream", local=trace.sockets[2].local, is_listener=True)
    trace.sockets[2].accepted_from = 3
    return trace


def rows(trace: Trace, name: str, **chosen: object) -> list[dict[str, object]]:
    return list(ask(trace, name, Selection(**chosen)))  # type: ignore[arg-type]


def saved(trace: Trace, path: Path) -> Path:
    with path.open("w", encoding="utf-8") as file:
        writer = TraceFileWriter(file, trace)
        for point in trace.points:
            writer.write(point)
        writer.write_end()
    return path


def run_query(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bothends", "query", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_connections_and_processes_in_figures() -> None:
    [connection] = rows(echo_trace(5), "connections")
    assert connection["name"] == "127.0.0.1:12345 → 127.0.0.1:12000"
    assert (connection["calls"], connection["packets"], connection["round_trips"]) == (20, 10, 5)
    assert connection["began_ns"] == 0
    client, server = rows(echo_trace(5), "processes")
    assert (client["process"], server["process"]) == ("client 11", "server 12")
    assert client["bytes_sent"] == server["bytes_received"]


def test_causes_go_back_and_effects_forward() -> None:
    trace = echo_trace(1)
    send, packet, receive = 1, 2, 3
    back = rows(trace, "causes", event=receive)
    assert [(row["event"], row["distance"], row["relation"], row["of"]) for row in back] == [
        (receive, 0, "", None),
        (packet, 1, "feeds", receive),
        (send, 2, "carries", packet),
    ]
    forward = rows(trace, "effects", event=send)
    assert [row["event"] for row in forward] == [send, packet, receive]


def test_causes_that_are_a_cycle_end() -> None:
    trace = echo_trace(1)
    trace.link(CausalLink(3, 1, "reaches"))
    assert [row["event"] for row in rows(trace, "causes", event=3)] == [3, 2, 1]


def test_waits_are_sorted_and_last_to_the_end() -> None:
    trace = echo_trace(2)
    last = max(point.at for point in trace.points)
    blocked = Call(100, 2, 12, "recvfrom", last - 3_000_000, descriptor=4, socket=2)
    trace.add(Point(blocked))
    trace.add(Point(ProcessEvent(101, last + 1_000_000, 1, "ended", "exit status 0")))
    first, second, *_ = rows(trace, "waits")
    assert (first["event"], first["took_ns"], first["ended"]) == (100, 4_000_000, False)
    assert second["ended"]


def test_selections() -> None:
    trace = echo_trace(3)
    trace.processes[3] = TracedProcess(3, 13, "")
    trace.add(Point(Call(200, 3, 13, "wait4", trace.points[0].at, error="ECHILD", result=-1)))
    assert {row["call"] for row in rows(trace, "calls")} == {"sendto", "recvfrom"}
    assert {row["process"] for row in rows(trace, "calls", process="server")} == {"server 12"}
    assert {row["call"] for row in rows(trace, "calls", process="13")} == {"wait4"}
    assert {row["call"] for row in rows(trace, "calls", calls=frozenset({"sendto"}))} == {"sendto"}
    assert [row["error"] for row in rows(trace, "calls", process="13", failed=True)] == ["ECHILD"]
    assert len(rows(trace, "packets", connection=1)) == 6


@pytest.mark.parametrize(
    ("name", "chosen", "message"),
    [
        ("calls", {"connection": 7}, "there is no connection 7; this trace has 1 to 1"),
        ("calls", {"process": "nginx"}, "there is no process 'nginx'; this trace has client, server"),
        ("causes", {}, "causes needs the number of an event"),
        ("causes", {"event": 9999}, "there is no event 9999"),
        ("packets", {"process": "client"}, "packets has no --process"),
        ("connections", {"event": 1}, "connections takes no event"),
    ],
)
def test_what_cannot_be_answered(name: str, chosen: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rows(echo_trace(1), name, **chosen)


@pytest.mark.parametrize("name", QUESTIONS)
def test_rows_have_the_columns_and_are_json(name: str) -> None:
    question = QUESTIONS[name]
    trace = hostile_trace() if not question.needs_event else echo_trace(1)
    found = rows(trace, name, event=1 if question.needs_event else None)
    for row in json.loads(json.dumps(found)):
        for column in question.columns:
            assert isinstance(column.show(row[column.key]), str)


def test_reference_lists_every_question_and_key() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "query.md").read_text(encoding="utf-8")
    for name, question in QUESTIONS.items():
        assert f"`{name}" in page
        for row in rows(echo_trace(1), name, event=1 if question.needs_event else None)[:1]:
            for key in row:
                assert f"`{key}`" in page, f"{name}: {key}"


def test_command_line(tmp_path: Path) -> None:
    path = str(saved(echo_trace(3), tmp_path / "run.trace"))
    table = run_query(path)
    assert table.returncode == 0, table.stderr
    assert "127.0.0.1:12345 → 127.0.0.1:12000" in table.stdout
    answer = json.loads(run_query(path, "calls", "--limit", "2", "--json").stdout)
    assert (answer["bothends-query"], answer["question"], len(answer["rows"])) == (1, "calls", 2)
    part = json.loads(run_query(path, "calls", "--to", "0.00001", "--json").stdout)
    assert 0 < len(part["rows"]) < 12
    wrong = run_query(path, "conections")
    assert (wrong.returncode, "did you mean 'connections'?" in wrong.stderr) == (2, True)
    absent = run_query(str(tmp_path / "none"))
    assert (absent.returncode, absent.stderr.count("\n")) == (1, 1)
