"""Waits: on traces made by hand, and on pairs of programs that hang."""

from __future__ import annotations

import io
import itertools
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bothends.trace import trace_file
from bothends.trace.findings.base import TraceIndex
from bothends.trace.model import (
    Call,
    DescriptorChange,
    Packet,
    Point,
    ProcessEvent,
    Socket,
    SocketAddress,
    Trace,
    TracedProcess,
)
from bothends.trace.rendering.html import render_page
from bothends.trace.rendering.layout import rows_of
from bothends.trace.waits.graph import WaitsAtEnd
from bothends.trace.waits.sentences import sentences, wait_arrows
from tests.interop.running import Running
from tests.tools import needs_tool
from tests.trace.running import page_data, read_saved

SERVER, CLIENT, OTHER = (SocketAddress("127.0.0.1", port) for port in (7000, 40000, 40001))
LISTENER, AT_SERVER, AT_CLIENT, SECOND = 1, 2, 3, 4
SECOND_NS = 1_000_000_000


@dataclass
class WaitingTrace:
    """A server (process 1) that has accepted the connection of a client (process 2). Times are in seconds."""

    trace: Trace = field(default_factory=Trace)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.process(1, "server")
        self.process(2, "client")
        self.socket(Socket(LISTENER, "inet", "stream", local=SERVER, is_listener=True), 1)
        self.socket(Socket(AT_SERVER, "inet", "stream", 0, SERVER, CLIENT, accepted_from=LISTENER), 1)
        self.socket(Socket(AT_CLIENT, "inet", "stream", 0, CLIENT, SERVER), 2)

    def process(self, number: int, role: str, parent: int | None = None) -> None:
        self.trace.processes[number] = TracedProcess(number, 100 + number, role, role, parent)

    def socket(self, socket: Socket, *holders: int) -> None:
        self.trace.sockets[socket.number] = socket
        for process in holders:
            self.trace.add_descriptor_change(DescriptorChange(0, socket.number, process, 3, is_open=True))

    def call(
        self,
        process: int,
        name: str,
        at: float,
        until: float | None = None,
        *,
        thread: int = 0,
        **attributes: object,
    ) -> Call:
        """Add a call; without `until` it is blocked. The result is its `size`."""
        call = Call(next(self.numbers), process, thread or 100 + process, name, round(at * SECOND_NS))
        for attribute, value in attributes.items():
            setattr(call, attribute, value)
        self.trace.add(Point(call))
        if until is not None:
            call.until, call.result = round(until * SECOND_NS), call.size
            self.trace.add(Point(call, is_end=True))
        return call

    def blocked(self, process: int, name: str, at: float, **attributes: object) -> Call:
        """Add a blocked call that is not on the timeline."""
        call = Call(next(self.numbers), process, 100 + process, name, round(at * SECOND_NS))
        for attribute, value in attributes.items():
            setattr(call, attribute, value)
        self.trace.blocked.append(call)
        return call

    def waits(self, end: float = 6) -> WaitsAtEnd:
        self.trace.frozen_at = round(end * SECOND_NS)
        self.trace.freeze()
        return WaitsAtEnd(TraceIndex(self.trace))

    def text(self) -> str:
        return " ".join(sentences(self.waits(), SECOND_NS))


def hello(trace: WaitingTrace) -> None:
    """The client sends five bytes, and the server reads them."""
    trace.call(2, "sendto", 0.1, 0.2, socket=AT_CLIENT, descriptor=3, size=5, requested=5)
    trace.call(1, "recvfrom", 0.1, 0.3, socket=AT_SERVER, descriptor=4, size=5, requested=100)


def test_both_ends_in_recv_are_a_deadlock() -> None:
    trace = WaitingTrace()
    hello(trace)
    trace.call(1, "recvfrom", 0.4, socket=AT_SERVER, descriptor=4, requested=100)
    trace.call(2, "recvfrom", 1, socket=AT_CLIENT, descriptor=3, requested=10)
    (cycle,) = trace.waits().cycles()
    assert {wait.process for wait in cycle} == {1, 2}
    assert {wait.need for wait in cycle} == {"data"}
    assert trace.text() == (
        "Deadlock: each end waits for the other, for 5 s. The client waits in recv(3, 10), and the server "
        "waits in recv(4, 100), on the same connection (127.0.0.1:40000 to 127.0.0.1:7000). The server has "
        "read all 5 bytes that the client sent. The server has sent nothing. It ends when the client sends "
        "the rest or ends its direction with shutdown(SHUT_WR), or when the server "
        "sends without waiting for more."
    )


def test_what_was_sent_last_is_shown() -> None:
    trace = WaitingTrace()
    trace.call(2, "sendto", 0.1, 0.2, socket=AT_CLIENT, size=5, requested=5, data=b"first")
    trace.call(2, "sendto", 0.2, 0.3, socket=AT_CLIENT, size=4, requested=4, data=b"last")
    trace.call(1, "recvfrom", 0.2, 0.4, socket=AT_SERVER, size=9, requested=100, data=b"firstlast")
    trace.call(2, "recvfrom", 1, socket=AT_CLIENT, descriptor=3, requested=10)
    trace.call(1, "futex", 0.5)
    assert 'for data from the server, for 5 s. It sent "last" 5.8 s ago.' in trace.text()
    trace.call(1, "recvfrom", 0.6, socket=AT_SERVER, descriptor=4, requested=100)
    assert 'The server has read all 9 bytes that the client sent, "last" last.' in trace.text()


def test_msg_waitall_counts_the_bytes_that_are_missing() -> None:
    trace = WaitingTrace()
    trace.call(2, "sendto", 0.1, 0.2, socket=AT_CLIENT, size=5, requested=5)
    flags = frozenset({"MSG_WAITALL"})
    trace.call(1, "recvfrom", 0.4, socket=AT_SERVER, descriptor=4, requested=100, flags=flags)
    trace.call(2, "recvfrom", 0.5, socket=AT_CLIENT, descriptor=3, requested=10)
    assert "recv(4, 100, MSG_WAITALL)" in trace.text()
    assert "The client has sent 5 bytes of the 100 bytes that the server waits for" in trace.text()


def test_both_ends_in_send_are_a_deadlock_with_the_bytes_that_arrived() -> None:
    trace = WaitingTrace()
    for process, socket, ends in ((1, AT_SERVER, (SERVER, CLIENT)), (2, AT_CLIENT, (CLIENT, SERVER))):
        trace.call(process, "sendto", 0.1, socket=socket, descriptor=3, requested=8_000_000)
        packet = Packet(next(trace.numbers), SECOND_NS, "tcp", *ends, 1000, b"", ("ACK",), offset=0)
        packet.sender, packet.receiver = socket, AT_SERVER + AT_CLIENT - socket
        trace.trace.add(Point(packet))
    assert {wait.need for wait in trace.waits().waits} == {"space"}
    sent = (
        "1,000 of the 8,000,000 bytes that the client sends have reached the server, which has not read them"
    )
    assert sent in trace.text()
    assert trace.text().endswith("It ends when the client or the server reads.")


@pytest.mark.parametrize(
    ("events", "sent", "need"),
    [
        ("EPOLLIN|EPOLLOUT", 1000, "space"),
        ("EPOLLIN|EPOLLOUT", 8_000_000, "data"),
        ("EPOLLOUT", 8_000_000, "space"),
        ("EPOLLIN", 1000, "data"),
    ],
)
def test_event_loop_with_the_rest_of_a_send_waits_for_room(events: str, sent: int, need: str) -> None:
    trace = WaitingTrace()
    trace.call(2, "write", 0.1, 0.2, socket=AT_CLIENT, descriptor=3, size=sent, requested=8_000_000)
    trace.call(2, "epoll_wait", 0.4, descriptor=5, sockets=(AT_CLIENT,), wanted_events=(events,))
    assert [wait.need for wait in trace.waits().waits] == [need]


def test_poll_with_time_limit_is_no_deadlock() -> None:
    trace = WaitingTrace()
    limit = 9 * SECOND_NS
    trace.call(1, "poll", 0.4, timeout_ns=limit, sockets=(AT_SERVER,), wanted_events=("POLLIN",))
    trace.call(2, "recvfrom", 0.5, socket=AT_CLIENT, descriptor=3)
    assert trace.waits().cycles() == []
    assert trace.text().startswith("Each end waits for the other, for 5.5 s, until a time limit of 9 s.")


def test_event_loop_with_listener_is_no_deadlock() -> None:
    trace = WaitingTrace()
    trace.call(
        1, "epoll_wait", 0.4, descriptor=5, sockets=(LISTENER, AT_SERVER), wanted_events=("EPOLLIN",) * 2
    )
    trace.call(2, "recvfrom", 0.5, socket=AT_CLIENT, descriptor=3)
    assert trace.waits().cycles() == []
    assert "The server waits in epoll_wait(5) on the same connection, for one of 2 sockets" in trace.text()


def test_idle_threads_of_a_pool_are_no_deadlock() -> None:
    trace = WaitingTrace()
    trace.call(1, "futex", 0.4, thread=11)
    trace.call(1, "futex", 0.4, thread=12)
    assert trace.waits().stuck == {11, 12}
    assert trace.waits().cycles() == []


def test_self_pipe_of_an_event_loop_is_left_out() -> None:
    trace = WaitingTrace()
    trace.socket(Socket(5, "unix", "stream", 50, peer_inode=60), 2)
    trace.socket(Socket(6, "unix", "stream", 60, peer_inode=50), 2)
    trace.call(1, "recvfrom", 0.4, socket=AT_SERVER, descriptor=4)
    trace.call(2, "epoll_wait", 0.5, descriptor=5, sockets=(5, AT_CLIENT), wanted_events=("EPOLLIN",) * 2)
    (cycle,) = trace.waits().cycles()
    assert [each.sockets for each in cycle] == [(AT_SERVER,), (AT_CLIENT,)]


def test_idle_server_alone_is_not_described() -> None:
    trace = WaitingTrace()
    trace.call(1, "accept4", 0.4, socket=LISTENER, descriptor=3)
    assert trace.text() == ""


@pytest.mark.parametrize(
    ("name", "attributes", "expected"),
    [
        ("clock_nanosleep", {"timeout_ns": 30 * SECOND_NS}, "The server sleeps for 30 s (for 5.5 s so far)"),
        ("read", {"descriptor": 0}, "The server waits for input from standard input"),
        ("poll", {"descriptors_waited": (0,)}, "The server waits for input from standard input"),
        ("futex", {}, "The server waits for a lock of another thread (futex)"),
    ],
)
def test_chain_ends_in_a_call_that_is_not_on_the_timeline(
    name: str, attributes: dict[str, object], expected: str
) -> None:
    trace = WaitingTrace()
    trace.call(2, "sendto", 0.1, 0.2, socket=AT_CLIENT, size=5, requested=5)
    trace.blocked(1, name, 0.5, **attributes)
    trace.call(2, "recvfrom", 0.5, socket=AT_CLIENT, descriptor=3)
    assert f"{expected}, and has not read the 5 bytes that arrived." in trace.text()


def test_second_client_waits_for_accept_because_first_holds_its_connection() -> None:
    trace = WaitingTrace()
    trace.process(3, "client 2")
    trace.socket(Socket(SECOND, "inet", "stream", local=OTHER, peer=SERVER), 3)
    trace.call(1, "recvfrom", 0.4, socket=AT_SERVER, descriptor=4)
    trace.blocked(2, "clock_nanosleep", 0.5)
    trace.call(3, "recvfrom", 0.6, socket=SECOND, descriptor=3)
    waits = trace.waits()
    (wait,) = (each for each in waits.waits if each.process == 3)
    assert wait.unaccepted
    assert [each.process for each in waits.chain(wait)] == [3, 1, 2]
    assert "Client 2 waits in recv(3) for data from the server" in trace.text()
    assert "it has not been accepted" in trace.text()
    assert (
        "The server waits in recv(4) on another connection, for data from the client. The client sleeps"
        in trace.text()
    )


def test_parent_with_a_copy_keeps_the_connection_open() -> None:
    trace = WaitingTrace()
    trace.process(3, "server/2", parent=1)
    trace.trace.add_descriptor_change(DescriptorChange(1, AT_SERVER, 3, 4, is_open=True))
    trace.call(3, "sendto", 0.1, 0.2, socket=AT_SERVER, size=4, requested=4)
    trace.trace.add_descriptor_change(DescriptorChange(SECOND_NS // 2, AT_SERVER, 3, 4, is_open=False))
    trace.call(1, "accept4", 0.4, socket=LISTENER, descriptor=3)
    trace.call(2, "recvfrom", 0.3, 0.4, socket=AT_CLIENT, descriptor=3, size=4)
    trace.call(2, "recvfrom", 0.5, socket=AT_CLIENT, descriptor=3)
    assert TraceIndex(trace.trace).holders_at(AT_SERVER, SECOND_NS) == {1: {3}}
    assert (
        "The server (descriptor 3) still holds the other end without using it, so no EOF arrives"
        in trace.text()
    )


def test_lost_packets_are_named() -> None:
    trace = WaitingTrace()
    packet = Packet(next(trace.numbers), 1, "tcp", CLIENT, SERVER, 9, b"", ("ACK",), offset=0, lost="loss")
    packet.sender, packet.receiver = AT_CLIENT, AT_SERVER
    trace.trace.add(Point(packet))
    trace.call(1, "recvfrom", 0.4, socket=AT_SERVER, descriptor=4)
    assert "9 bytes were sent to it and lost on the way (loss)" in trace.text()


def test_lost_packet_that_was_sent_again_is_not_named() -> None:
    trace = WaitingTrace()
    for at, lost in ((1, "loss"), (2, "")):
        packet = Packet(next(trace.numbers), at, "tcp", CLIENT, SERVER, 9, b"", ("ACK",), offset=0, lost=lost)
        packet.sender, packet.receiver = AT_CLIENT, AT_SERVER
        trace.trace.add(Point(packet))
    trace.call(1, "recvfrom", 0.4, socket=AT_SERVER, descriptor=4)
    assert trace.waits().lost(AT_SERVER) == []


def test_thread_that_only_accepts_cannot_end_the_wait_of_a_client() -> None:
    trace = WaitingTrace()
    trace.call(1, "accept4", 0.1, 0.2, socket=LISTENER, descriptor=3, size=4)
    trace.call(1, "accept4", 0.3, socket=LISTENER, descriptor=3)
    trace.call(1, "recvfrom", 0.4, thread=12, socket=AT_SERVER, descriptor=4)
    trace.call(2, "recvfrom", 0.5, socket=AT_CLIENT, descriptor=3)
    waits = trace.waits()
    assert waits.by_thread[102].ender_threads == (12,)
    (cycle,) = waits.cycles()
    assert {wait.thread for wait in cycle} == {12, 102}


def test_child_that_has_exited_cannot_end_the_wait_of_its_parent() -> None:
    trace = WaitingTrace()
    for number in (3, 4):
        trace.process(number, "server/2", parent=1)
    trace.trace.add(Point(ProcessEvent(next(trace.numbers), SECOND_NS, 3, "ended", "exited")))
    trace.call(1, "wait4", 2)
    (wait,) = trace.waits().waits
    assert (wait.need, wait.enders) == ("child", (4,))


@pytest.mark.parametrize("answered", [False, True])
def test_unanswered_syns_are_counted(answered: bool) -> None:
    trace = WaitingTrace()
    for at in (1, 2):
        syn = Packet(next(trace.numbers), at, "tcp", CLIENT, SERVER, 0, b"", ("SYN",))
        syn.sender = AT_CLIENT
        trace.trace.add(Point(syn))
    if answered:
        answer = Packet(next(trace.numbers), 3, "tcp", SERVER, CLIENT, 0, b"", ("SYN", "ACK"))
        answer.receiver = AT_CLIENT
        trace.trace.add(Point(answer))
    trace.call(2, "connect", 0.4, socket=AT_CLIENT, descriptor=3)
    assert ("2 SYNs were sent, and no answer has arrived." in trace.text()) is not answered


def test_frozen_trace_holds_no_later_results() -> None:
    trace = WaitingTrace()
    call = trace.call(1, "recvfrom", 0.4, 7, socket=AT_SERVER, descriptor=4, size=5)
    assert [wait.call for wait in trace.waits(6).waits] == [call]
    assert (call.until, call.result, call.size) == (None, None, 0)


def test_unread_bytes_are_named_while_a_thread_waits_for_a_keyboard() -> None:
    trace = WaitingTrace()
    trace.call(2, "sendto", 0.1, 0.2, socket=AT_CLIENT, size=3, requested=3)
    trace.call(1, "sendto", 0.1, 0.2, socket=AT_SERVER, size=5, requested=5)
    trace.blocked(2, "read", 0.5, descriptor=0)
    assert trace.text() == (
        "The client waits for input from standard input. Meanwhile 5 bytes from the server on a connection "
        "of this thread are unread."
    )


SERVER_TO_EOF = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
connection, _ = listener.accept()
data = b""
while received := connection.recv(100):
    data += received
connection.sendall(data.upper())
"""
CLIENT_WITHOUT_SHUTDOWN = """
import socket, sys
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
client.sendall(b"hello")
print(client.recv(100))
"""


@pytest.fixture
def hanging_pair(tmp_path: Path) -> list[str]:
    """The arguments of a trace of two programs that wait for each other."""
    (tmp_path / "server.py").write_text(SERVER_TO_EOF)
    (tmp_path / "client.py").write_text(CLIENT_WITHOUT_SHUTDOWN)
    python = f"{sys.executable} -I -S"
    server, client = f"{python} {tmp_path / 'server.py'}", f"{python} {tmp_path / 'client.py'} {{port}}"
    return [sys.executable, "-m", "bothends", "trace", "--server", server, "--client", client]


DEADLOCK = rb"waits  Deadlock: each end waits for the other(?s:.*)The\s+server\s+has\s+read\s+all\s+5\s"


def test_datagram_socket_waits_for_the_address_that_it_sent_to() -> None:
    trace = WaitingTrace()
    trace.socket(Socket(5, "inet", "datagram", local=SERVER), 1)
    trace.socket(Socket(6, "inet", "datagram", local=CLIENT), 2)
    trace.call(2, "sendto", 0.1, 0.2, socket=6, size=5, address=SERVER)
    trace.call(2, "recvfrom", 0.3, socket=6, descriptor=3)
    trace.call(1, "recvfrom", 0.1, socket=5, descriptor=3)
    assert trace.text() == (
        "The client waits in recv(3) for data from the server, for 5.7 s. The server waits in recv(3) for a "
        "request of any client."
    )


def test_saved_trace_has_the_same_waits() -> None:
    trace = WaitingTrace()
    file = io.StringIO()
    writer = trace_file.TraceFileWriter(file, trace.trace)
    hello(trace)
    blocked = trace.call(1, "recvfrom", 0.4, socket=AT_SERVER, descriptor=4)
    for point in trace.trace.points:
        writer.write(point)
    blocked.requested = 100  # known later
    trace.blocked(2, "clock_nanosleep", 0.5)
    text = trace.text()
    writer.write_end()
    again = Trace()
    trace_file.read(file.getvalue().splitlines(keepends=True), "saved", lambda _: None, again)
    assert again.holders == trace.trace.holders
    assert sentences(WaitsAtEnd(TraceIndex(again)), SECOND_NS) == [text]
    assert "recv(4, 100)" in text


def test_arrows_lead_from_each_wait_to_the_process_that_could_end_it() -> None:
    trace = WaitingTrace()
    hello(trace)
    trace.call(1, "recvfrom", 0.4, socket=AT_SERVER, descriptor=4)
    trace.call(2, "sendto", 0.5, socket=AT_CLIENT, descriptor=3)
    arrows = wait_arrows(trace.waits(), SECOND_NS)
    assert {each[:3] for each in arrows} == {(1, 2, "waits for data"), (2, 1, "waits for a read")}
    rows = list(rows_of(trace.trace, waits=arrows))[-2:]
    assert [row.arrow.text for row in rows if row.arrow is not None] == [each.text for each in arrows]
    page = render_page(trace.trace, rows, waits=["The client waits for <server>."])
    assert page_data(page)["texts"].count("waits for data") == 1
    assert "<h2>Waits</h2><ul><li>The client waits for &lt;server&gt;.</li></ul>" in page


@needs_tool("strace")
def test_time_limit_explains_the_deadlock_and_exits_with_124(hanging_pair: list[str]) -> None:
    with Running([*hanging_pair, "--calls-only", "--time-limit", "2"]) as running:
        running.text(DEADLOCK)
        assert running.wait() == 124


@needs_tool("strace")
def test_interrupt_is_not_part_of_the_picture(hanging_pair: list[str], tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    with Running([*hanging_pair, "--save", str(saved)]) as running:
        running.text(DEADLOCK)  # nothing has moved for three seconds
        os.killpg(running.process.pid, signal.SIGINT)  # as ^C: bothends and the client
        assert running.wait() == 130
        text = running.wait_for_output(
            "the second text", lambda data: data if data.count(b"Deadlock") > 1 else None
        )
    assert b"SIGINT" not in text
    assert b"ERESTART" not in text
    assert read_saved(saved).ended_by == "SIGINT"


@needs_tool("strace")
def test_quit_explains_at_once_and_ends_nothing(hanging_pair: list[str]) -> None:
    with Running([*hanging_pair, "--calls-only"]) as running:
        running.text(rb"recvfrom\(3\) waits")
        running.text(rb"recvfrom\(4\) waits")
        os.killpg(running.process.pid, signal.SIGQUIT)  # as ^\\: bothends and the client
        running.text(DEADLOCK)
        assert b"SIGQUIT" not in running.text(rb"(?s:.*)")[0]
        running.process.send_signal(signal.SIGTERM)
        assert running.wait() == 143
