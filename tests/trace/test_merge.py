"""Merging traces: causal links between them are found, and packets in both are drawn once."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

from bothends import events
from bothends.endpoints import Address, Endpoint
from bothends.trace.correlation.merge import merge
from bothends.trace.model import Call, CausalLink, Packet, Point, Socket, SocketAddress, Trace, TracedProcess
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import ENVIRONMENT, Running
from tests.tools import needs_tool
from tests.trace.running import has_packets, packets
from tests.trace.test_event_recorder import record_events

HERE, THERE = SocketAddress("127.0.0.1", 40000), SocketAddress("127.0.0.1", 12000)
PEER, LOCAL = Address("inet", "127.0.0.1", 40000), Address("inet", "127.0.0.1", 12000)


def client_trace(*, late: int = 0) -> Trace:
    """Return a client's trace: it connects, sends and receives; with packets."""
    trace = Trace()
    trace.processes[1] = TracedProcess(1, 7, "client")
    trace.sockets[1] = Socket(1, "inet", "stream", local=HERE, peer=THERE)
    events_in_order: list[Call | Packet] = [
        Call(1, 1, 7, "connect", 15, 18, ("3",), 0, descriptor=3, socket=1, address=THERE),
        Packet(2, 16, "tcp", HERE, THERE, 0, b"", ("SYN",), 99, sender=1),
        Packet(3, 17, "tcp", THERE, HERE, 0, b"", ("SYN", "ACK"), 499, 100, receiver=1),
        Packet(8, 18, "tcp", HERE, THERE, 0, b"", ("ACK",), 100, 500, sender=1),
        Call(
            4, 1, 7, "sendto", 20, 21, ("3",), 5, descriptor=3, socket=1, requested=5, size=5, data=b"hello"
        ),
        Packet(5, 22, "tcp", HERE, THERE, 5, b"hello", ("PSH", "ACK"), 100, 500, sender=1),
        Packet(6, 41, "tcp", THERE, HERE, 5, b"HELLO", ("PSH", "ACK"), 500, 105, receiver=1),
        Call(7, 1, 7, "recvfrom", 42, 43, ("3", "99"), 5, descriptor=3, socket=1, size=5, data=b"HELLO"),
    ]
    for event in events_in_order:
        event.at += late
        trace.add(Point(event))
        if isinstance(event, Call) and event.until is not None:
            event.until += late
            trace.add(Point(event, is_end=True))
    trace.link(CausalLink(4, 5, "carries"))
    trace.link(CausalLink(6, 7, "feeds"))
    return trace


def server_trace(path: Path) -> Trace:
    """Return the server's recording of the same conversation."""
    return record_events(
        path,
        events.Listening(Endpoint.parse("tcp://127.0.0.1:12000"), at=10),
        events.Accepted(1, PEER, LOCAL, at=19),
        events.Received(1, PEER, b"hello", at=30),
        events.Sent(1, PEER, b"HELLO", at=40),
    )


def merge_traces(*traces: Trace) -> Trace:
    into = Trace()
    assert list(merge(traces, into)) == list(into.points)
    return into


def event_texts(trace: Trace) -> list[str]:
    """Return the events in order: calls at their end, packets by their data or flags."""
    return [
        event.name if isinstance(event, Call) else event.data.decode() or " ".join(event.flags)
        for event, is_end in trace.points
        if isinstance(event, Packet) or (isinstance(event, Call) and is_end)
    ]


ORDER = [
    "listen",
    "SYN",
    "SYN ACK",
    "connect",
    "ACK",
    "accept",
    "sendto",
    "hello",
    "recv",
    "send",
    "HELLO",
    "recvfrom",
]


def test_merge_links_events_of_both_traces(tmp_path: Path) -> None:
    trace = merge_traces(server_trace(tmp_path / "s.trace"), client_trace())
    assert event_texts(trace) == ORDER
    by_name = {event.name: event for event in trace.events() if isinstance(event, Call)}
    request, reply = [each for each in packets(trace) if each.size]
    assert request in [trace.event(each.cause) for each in trace.causes_of(by_name["recv"].number)]
    assert [trace.event(each.cause) for each in trace.causes_of(reply.number)] == [by_name["send"]]
    assert {each.accepted_from for each in trace.sockets.values()} == {None, 1}
    assert {trace.sockets[each or 0].local for each in (reply.sender, reply.receiver)} == {HERE, THERE}
    assert trace.notes == []


def test_merge_clock_skew_keeps_causality(tmp_path: Path) -> None:
    trace = merge_traces(server_trace(tmp_path / "s.trace"), client_trace(late=15))
    order = event_texts(trace)
    assert order.index("hello") < order.index("recv") < order.index("send") < order.index("HELLO")
    assert order.index("SYN") < order.index("accept")


def test_merge_packet_captured_twice_is_drawn_once(tmp_path: Path) -> None:
    other = client_trace()
    other.processes[1].role = "another"
    trace = merge_traces(client_trace(), other)
    assert len(packets(trace)) == 5
    assert len({event.number for event in trace.events()}) == 5 + 2 * 3
    assert {process.role for process in trace.processes.values()} == {"client", "another"}


def test_merge_wrapped_socket_is_not_linked_to_packets(tmp_path: Path) -> None:
    recording = server_trace(tmp_path / "s.trace")
    for each in recording.sockets.values():
        each.is_wrapped = True
    trace = merge_traces(recording, client_trace())
    received = next(event for event in trace.events() if isinstance(event, Call) and event.name == "recv")
    assert trace.causes_of(received.number) == []


def test_merge_wrapped_sockets_are_linked_directly(tmp_path: Path) -> None:
    tls = Endpoint.parse("tls://127.0.0.1:12000")
    client = record_events(
        tmp_path / "c.trace",
        events.Connected(1, tls, LOCAL, PEER, 12, at=18),
        events.Sent(1, LOCAL, b"hello", at=31),
        events.Received(1, LOCAL, b"HELLO", at=39),
    )
    recording = server_trace(tmp_path / "s.trace")
    for each in recording.sockets.values():
        each.is_wrapped = True
    trace = merge_traces(recording, client)
    assert [link.kind for link in trace.links()] == ["reaches", "reaches"]
    order = [(each.event.name, each.is_end) for each in trace.points if isinstance(each.event, Call)]
    assert order.index(("send", False)) < order.index(("recv", True))


@needs_tool("strace")
def test_merge_recorded_server_with_straced_client(tmp_path: Path) -> None:
    server_file, client_file = str(tmp_path / "s.trace"), str(tmp_path / "c.trace")
    words = ["serve", "upper", "tcp://127.0.0.1:0", "-q", "--trace", server_file]
    with Running([*BOTHENDS, *words]) as running:
        port = running.error_line(rb"  tcp://127\.0\.0\.1:(\d+)")[1].decode()
        source = (
            f"import socket; s = socket.create_connection(('127.0.0.1', {port})); s.sendall(b'hi'); s.recv(9)"
        )
        open_traces(["--save", client_file, "--", sys.executable, "-I", "-S", "-c", source])
        running.process.send_signal(signal.SIGTERM)
        assert running.wait() == 0
    shown = open_traces(["--open", server_file, "--open", client_file])
    order = ["listen(127", "accept(127", 'recv(connection 1) = 2 "hi"', 'recvfrom(3, 9) = 2 "HI"']
    positions = [shown.index(each) for each in order]
    assert positions == sorted(positions)
    if has_packets():
        arrows = [line for line in shown.splitlines() if "PSH" in line]
        assert ["▶" in line or "◀" in line for line in arrows] == [True, True]


def test_merge_recorded_server_with_recorded_client(tmp_path: Path) -> None:
    server_file, client_file = str(tmp_path / "s.trace"), str(tmp_path / "c.trace")
    with Running([*BOTHENDS, "connect", "-l", "tcp://127.0.0.1:0", "--trace", server_file]) as running:
        port = running.error_line(rb"listening on tcp://127\.0\.0\.1:(\d+)")[1].decode()
        with Running([*BOTHENDS, "connect", "--trace", client_file, "127.0.0.1", port]) as client:
            client.write_input(b"hello\n")
            running.text(b"hello")
            client.close_input()
            running.write_input(b"you\n")
            running.close_input()
            assert running.wait() == client.wait() == 0
    shown = open_traces(["--open", client_file, "--open", server_file])
    for cause, effect in [
        ("listen(127", "accept(127"),
        ('send(connection 1, "hello', '= 6 "hello'),
        ('= 6 "hello', 'send(connection 1, "you'),
        ('send(connection 1, "you', '= 4 "you'),
        ("shutdown(connection 1, SHUT_WR)", "= 0 (EOF)"),
    ]:
        assert shown.index(cause) < shown.index(effect)
    assert "finding" not in shown


def test_merge_recorded_datagrams_of_both_ends(tmp_path: Path) -> None:
    udp = Endpoint.parse("udp://127.0.0.1:12000")
    server = record_events(
        tmp_path / "s.trace",
        events.Listening(udp, at=1),
        events.Received(0, PEER, b"one", at=10),
        events.Sent(0, PEER, b"ONE", at=30),  # recorded when it was done, after its receiver
    )
    client = record_events(
        tmp_path / "c.trace",
        events.Connected(1, udp, LOCAL, PEER, 2, at=3),
        events.Sent(1, LOCAL, b"one", at=5),
        events.Received(1, LOCAL, b"ONE", at=20),
    )
    trace = merge_traces(server, client)
    order = [(each.event.name, each.is_end) for each in trace.points if isinstance(each.event, Call)]
    assert order.index(("send", False)) < order.index(("recvfrom", True))
    assert order.index(("sendto", False)) < order.index(("recv", True))
    assert [link.kind for link in trace.links()] == ["reaches", "reaches"]


def test_recorder_refused_connect_is_drawn(tmp_path: Path) -> None:
    path = str(tmp_path / "c.trace")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        command = [*BOTHENDS, "connect", "--trace", path, "127.0.0.1", str(port)]
        done = subprocess.run(command, capture_output=True, timeout=60, env=ENVIRONMENT, check=False)
    assert done.returncode == 1
    assert f"connect(no connection, 127.0.0.1:{port}) = ECONNREFUSED" in open_traces(["--open", path])


def open_traces(arguments: list[str]) -> str:
    command = [*BOTHENDS, "trace", "--width", "140", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=60, env=ENVIRONMENT, check=True)
    return done.stdout.decode()
