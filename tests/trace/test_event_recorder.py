"""`bothends serve --trace`: the events of an engine, recorded and drawn as a trace."""

from __future__ import annotations

import errno
import os
import signal
import threading
from pathlib import Path

import pytest

from bothends import events
from bothends.client.blocking import connect
from bothends.endpoints import Address, Endpoint
from bothends.errors import SystemCallFailed, TimeoutExpired
from bothends.trace import trace_file
from bothends.trace.capture.event_recorder import EventRecorder
from bothends.trace.findings import run_rules
from bothends.trace.model import Call, Point, ProcessEvent, Trace
from bothends.trace.rendering.layout import rows_of
from bothends.trace.rendering.terminal import Painter
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import Running

PEER, LOCAL = Address("inet", "127.0.0.1", 40000), Address("inet", "127.0.0.1", 12000)
TCP, UDP = Endpoint.parse("tcp://127.0.0.1:12000"), Endpoint.parse("udp://127.0.0.1:12000")
CONVERSATION = (
    events.Listening(TCP, at=10),
    events.Listening(UDP, at=11),
    events.Accepted(1, PEER, LOCAL, at=20),
    events.Received(1, PEER, b"hello", at=30),
    events.Sent(1, PEER, b"HELLO", at=40),
    events.Received(0, PEER, b"\x1b[2J", at=45),
    events.PeerEof(1, PEER, at=50),
    events.Closed(1, PEER, events.CloseReason.IDLE, 5, 5, at=60),
)


def read_trace_file(path: Path) -> Trace:
    trace = Trace()
    with path.open(encoding="utf-8") as lines:
        trace_file.read(lines, path.name, lambda _: None, trace)
    return trace


def record_events(path: Path, *recorded: events.Event, max_size: int = 1 << 20) -> Trace:
    """Record events, and read the trace file."""
    recorder = EventRecorder(path, max_size=max_size)
    for event in recorded:
        recorder(event)
    return read_trace_file(path)


def drawn_lines(trace: Trace) -> list[str]:
    painter = Painter(120, colour=False)
    return [line.strip() for row in rows_of(trace) for line in painter.lines(row)]


def names(trace: Trace) -> list[str]:
    return [each.name for each in trace.events() if isinstance(each, Call)]


def test_recorder_server_events_are_drawn_as_calls(tmp_path: Path) -> None:
    trace = record_events(tmp_path / "a.trace", *CONVERSATION)
    assert [line.partition("│ ")[2] for line in drawn_lines(trace)][1:] == [
        "listen(127.0.0.1:12000)",
        "• LISTEN",
        "bind(127.0.0.1:12000, 127.0.0.1:12000)",
        "accept(127.0.0.1:12000) = 1 from 127.0.0.1:40000",
        'recv(connection 1) = 5 "hello"',
        'send(connection 1, "HELLO", 5) = 5',
        'recvfrom(127.0.0.1:12000) = 4 "\\x1b[2J" from 127.0.0.1:40000',
        "recv(connection 1) = 0 (EOF)",
        "127.0.0.1#40000 closed: idle timeout (5 bytes in, 5 out)",
        "close(connection 1)",
    ]
    accepted = next(each for each in trace.events() if isinstance(each, Call) and each.name == "accept")
    connection = trace.sockets[accepted.created_id or 0]
    assert (connection.accepted_from, str(connection.local), str(connection.peer)) == (
        1,
        "127.0.0.1:12000",
        "127.0.0.1:40000",
    )
    assert run_rules(trace) == []


def test_recorder_client_events_are_drawn_as_calls(tmp_path: Path) -> None:
    trace = record_events(
        tmp_path / "a.trace",
        events.ConnectFailed(TCP, SystemCallFailed("connect to", str(TCP), errno.ECONNREFUSED), 1, at=5),
        events.ConnectFailed(TCP, TimeoutExpired("127.0.0.1:12000", "connecting", 2.0), 6, at=7),
        events.Connected(1, TCP, LOCAL, PEER, 10, at=5_000_010),
        events.Sent(1, LOCAL, b"hello", at=5_000_020),
        events.WriteShutdown(1, LOCAL, at=5_000_030),
        events.Received(1, LOCAL, b"HELLO", at=5_000_040),
        events.Closed(1, LOCAL, events.CloseReason.RESET, 5, 5, at=5_000_050),
    )
    assert [line.partition("│ ")[2] for line in drawn_lines(trace)][1:] == [
        "connect(no connection, 127.0.0.1:12000) = ECONNREFUSED",
        "127.0.0.1:12000: timed out after 2 s while connecting",
        "connect(connection 1, 127.0.0.1:12000) = 0, after 5 ms",
        'send(connection 1, "hello", 5) = 5',
        "shutdown(connection 1, SHUT_WR)",
        'recv(connection 1) = 5 "HELLO"',
        "127.0.0.1#12000 closed: reset by the peer (5 bytes in, 5 out)",
        "close(connection 1)",
    ]
    refused, connected = trace.sockets.values()
    assert (refused.local, refused.peer) == (None, None)
    assert (str(connected.local), str(connected.peer), connected.is_listener) == (
        "127.0.0.1:40000",
        "127.0.0.1:12000",
        False,
    )


def test_recorder_tls_sockets_are_marked_wrapped(tmp_path: Path) -> None:
    trace = record_events(
        tmp_path / "a.trace", events.Listening(Endpoint.parse("tls://:12000")), CONVERSATION[2]
    )
    assert [each.is_wrapped for each in trace.sockets.values()] == [True, True]


def test_recorder_file_size_is_bounded_and_omission_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    received = [events.Received(1, PEER, b"x" * 100) for _ in range(100)]
    trace = record_events(
        path, *CONVERSATION[:3], *received, events.Stopped(), events.Stopped(), max_size=4000
    )
    assert path.stat().st_size < 6000
    recorded = names(trace).count("recv")
    assert 0 < recorded < 20
    assert trace.notes == [f"{100 - recorded} later events were left out: the file had reached 4000 bytes"]


def test_recorder_processes_and_threads_share_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    recorder = EventRecorder(path)
    recorder(CONVERSATION[0])
    children = []

    def record_many() -> None:
        for number in range(1, 41):
            recorder(events.Received(number, PEER, b"x" * 3000))

    for _ in range(3):
        child = os.fork()
        if not child:
            threads = [threading.Thread(target=record_many) for _ in range(2)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
        recorder(events.ChildExited(child, "worker", 0))
    trace = read_trace_file(path)  # raises if a line is torn
    calls = [each for each in trace.events() if isinstance(each, Call) and each.name == "recv"]
    assert len({each.number for each in calls}) == 3 * 2 * 40
    assert {each.process for each in calls} == set(children)
    assert {trace.processes[each].role for each in children} == {f"server/{each}" for each in children}
    ended = [each.text for each in trace.events() if isinstance(each, ProcessEvent) and each.kind == "ended"]
    assert ended == ["exit status 0"] * 3


def test_recorder_new_file_replaces_path_without_truncating_old(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    first = EventRecorder(path)
    first(CONVERSATION[0])
    second = EventRecorder(path)
    first(CONVERSATION[1])
    second(CONVERSATION[1])
    assert names(read_trace_file(path)) == ["bind"]


def test_recorder_unwritable_file_raises(tmp_path: Path) -> None:
    with pytest.raises(SystemCallFailed, match="ENOENT"):
        EventRecorder(tmp_path / "nowhere" / "a.trace")


@pytest.mark.parametrize("engine", ["epoll", "fork"])
def test_serve_writes_a_trace(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "s.trace"
    words = ["serve", "upper", "tcp://127.0.0.1:0", "--engine", engine, "-q", "--trace", str(path)]
    with Running([*BOTHENDS, *words]) as server:
        port = server.error_line(rb"  tcp://127\.0\.0\.1:(\d+)")[1].decode()
        with connect(f"tcp://127.0.0.1:{port}") as client:
            assert client.exchange(b"hello") == b"HELLO"
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    trace = read_trace_file(path)
    assert names(trace) == ["listen", "accept", "recv", "send", "recv", "close"]
    assert not trace.notes
    assert {point.is_end for point in trace.points if isinstance(point.event, Call)} == {False, True}
    assert isinstance(trace.points[0], Point)
