"""When an exchange ends, on a clock of its own; and the pump between real descriptors."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.client.blocking import Connection
from bothends.client.stdio_relay import (
    EOF_GRACE_PERIOD,
    NO_REPLY_DELAY,
    REPLY_IDLE,
    ClientRelay,
    CrlfEncoder,
    Deadline,
    ExitPolicy,
    OutputSink,
    RequestExitPolicy,
)
from bothends.endpoints import Endpoint
from bothends.errors import ConnectionLost, TimeoutExpired
from bothends.escaping import Escaper
from tests.client.peers import TIMEOUT

ENDPOINT = Endpoint("unix", path="/nowhere")


def test_exit_policy_half_closes_after_input_and_waits_for_peer() -> None:
    ending = ExitPolicy(quit_after=None, idle_timeout=None, started=100.0)
    assert ending.next_deadline() is None
    ending.all_sent = 101.0
    assert ending.next_deadline() == Deadline(101.0, "finish")
    ending.half_closed = 101.0
    assert ending.next_deadline() is None


def test_exit_policy_quit_after_exits_when_idle() -> None:
    ending = ExitPolicy(quit_after=2.0, idle_timeout=None, started=100.0, all_sent=101.0, half_closed=101.0)
    assert ending.next_deadline() == Deadline(103.0, "leave")
    ending.on_received(1, 102.5)
    assert ending.next_deadline() == Deadline(104.5, "leave")


def test_exit_policy_exits_after_peer_eof_grace_period() -> None:
    ending = ExitPolicy(quit_after=None, idle_timeout=None, started=100.0, peer_eof=True)
    assert ending.next_deadline() == Deadline(100.0 + EOF_GRACE_PERIOD, "leave")


def test_exit_policy_idle_timeout_gives_up() -> None:
    ending = ExitPolicy(quit_after=None, idle_timeout=5.0, started=100.0)
    assert ending.next_deadline() == Deadline(105.0, "give up")
    ending.on_received(0, 104.0)
    assert ending.next_deadline() == Deadline(109.0, "give up")


def test_request_exit_policy_half_closes_when_reply_complete() -> None:
    ending = RequestExitPolicy(quit_after=2.0, idle_timeout=10.0, started=100.0, expected_messages=2)
    assert ending.next_deadline() == Deadline(110.0, "give up")
    ending.all_sent = 100.0
    assert ending.next_deadline() == Deadline(100.0 + NO_REPLY_DELAY, "finish")
    ending.on_received(1, 100.5)  # one line of two
    assert ending.next_deadline() == Deadline(100.5 + REPLY_IDLE, "finish")
    ending.on_received(1, 100.6)
    assert ending.next_deadline() == Deadline(100.0, "finish")
    ending.half_closed = 100.6
    assert ending.next_deadline() == Deadline(102.6, "leave")


def test_request_exit_policy_without_reply_times_out() -> None:
    ending = RequestExitPolicy(
        quit_after=2.0, idle_timeout=10.0, started=100.0, all_sent=100.0, half_closed=101.0
    )
    assert ending.next_deadline() == Deadline(110.0, "give up")


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        (b"one\ntwo\n", b"one\r\ntwo\r\n"),
        (b"has\r\nit\n", b"has\r\nit\r\n"),
        (b"\n\n\r\n\n", b"\r\n\r\n\r\n\r\n"),
        (b"a\rb\r\r\nno end", b"a\rb\r\r\nno end"),
    ],
)
def test_crlf_encoder_output_for_any_chunk_size(typed: bytes, sent: bytes) -> None:
    for size in range(1, len(typed) + 1):
        ends = CrlfEncoder()
        cut = [typed[place : place + size] for place in range(0, len(typed), size)]
        assert b"".join(map(ends.feed, cut)) == sent


@given(st.lists(st.text("a\r\n", max_size=6)))
def test_crlf_encoder_is_independent_of_chunking(pieces: list[str]) -> None:
    ends = CrlfEncoder()
    data = [piece.encode() for piece in pieces]
    assert b"".join(map(ends.feed, data)) == CrlfEncoder().feed(b"".join(data))


class RelayHarness:
    """A connection whose peer is in the test's hands, and pipes for its input and output."""

    def __init__(self) -> None:
        ours, self.peer = socket.socketpair()
        self.peer.settimeout(TIMEOUT)
        self.connection = Connection(ours, ENDPOINT)
        self.source, self.input = os.pipe()
        self.output, self.target = os.pipe()

    def close(self) -> None:
        """Give everything back."""
        self.peer.close()
        self.connection.close()
        for descriptor in (self.source, self.input, self.output, self.target):
            if descriptor >= 0:
                os.close(descriptor)

    def end_input(self) -> None:
        """Standard input's EOF."""
        os.close(self.input)
        self.input = -1

    def relay(self, exit_policy: ExitPolicy | None = None) -> ClientRelay:
        """The pump under test."""
        exit_policy = exit_policy or ExitPolicy(None, TIMEOUT, time.monotonic())
        return ClientRelay(self.connection, self.source, OutputSink(self.target), exit_policy)


@pytest.fixture
def ends() -> Iterator[RelayHarness]:
    """See Ends."""
    both = RelayHarness()
    yield both
    both.close()


def start_thread(work: Callable[[], None]) -> threading.Thread:
    """Start it; give the thread."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_relay_large_echo_does_not_deadlock(ends: RelayHarness) -> None:
    data = os.urandom(3_000_000)

    def type_it() -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(ends.input, view) :]
        ends.end_input()

    def echo() -> None:
        while chunk := ends.peer.recv(65536):
            ends.peer.sendall(chunk)
        ends.peer.close()

    came = bytearray()

    def read() -> None:
        while len(came) < len(data):
            came.extend(os.read(ends.output, 65536))

    threads = [start_thread(work) for work in (type_it, echo, read)]
    totals = ends.relay().run()
    for thread in threads:
        thread.join(TIMEOUT)
    assert bytes(came) == data
    assert (totals.sent, totals.received) == (len(data), len(data))


def test_relay_applies_backpressure_when_output_is_blocked(ends: RelayHarness) -> None:
    # Standard output takes nothing; so the peer must be stopped after what the buffers hold.
    ends.end_input()
    left: list[BaseException] = []

    def pump() -> None:
        try:
            ends.relay().run()
        except BrokenPipeError as error:
            left.append(error)

    thread = start_thread(pump)
    ends.peer.settimeout(0.2)
    sent = 0
    try:
        while sent < 50_000_000:
            sent += ends.peer.send(bytes(65536))
    except TimeoutError:
        pass
    assert sent < 5_000_000
    os.close(ends.output)
    ends.output = -1
    thread.join(TIMEOUT)
    assert left


def test_relay_outputs_reply_before_reporting_send_error(ends: RelayHarness) -> None:
    os.write(ends.input, b"more than the peer wanted")
    ends.peer.sendall(b"no thanks")
    ends.peer.close()
    with pytest.raises(ConnectionLost):
        ends.relay().run()
    assert os.read(ends.output, 100) == b"no thanks"


def test_relay_sends_whole_file_after_peer_half_close(ends: RelayHarness, tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    path = tmp_path / "data"
    path.write_bytes(data)
    ends.peer.shutdown(socket.SHUT_WR)
    came = bytearray()

    def read() -> None:
        while chunk := ends.peer.recv(65536):
            came.extend(chunk)

    thread = start_thread(read)
    with path.open("rb") as file:
        ClientRelay(
            ends.connection,
            file.fileno(),
            OutputSink(ends.target),
            ExitPolicy(None, TIMEOUT, time.monotonic()),
        ).run()
    ends.connection.close()
    thread.join(TIMEOUT)
    assert bytes(came) == data


def test_relay_ends_on_peer_close_with_open_input(ends: RelayHarness) -> None:
    ends.peer.close()
    ends.relay().run()


def test_relay_idle_timeout_raises(ends: RelayHarness) -> None:
    with pytest.raises(TimeoutExpired) as caught:
        ends.relay(ExitPolicy(None, 0.05, time.monotonic())).run()
    assert caught.value.seconds == 0.05


def test_relay_maps_packets_to_lines() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    source, typed = os.pipe()
    output, target = os.pipe()
    os.write(typed, b"one\ntwo\nthree")
    os.close(typed)
    theirs.send(b"ein")
    theirs.send(b"zwei\n")
    with Connection(ours, ENDPOINT) as connection, theirs:
        theirs.shutdown(socket.SHUT_WR)
        totals = ClientRelay(
            connection,
            source,
            OutputSink(target, terminate_messages=True),
            ExitPolicy(None, TIMEOUT, time.monotonic()),
        ).run()
        assert [theirs.recv(100) for _ in range(3)] == [b"one", b"two", b"three"]
    assert os.read(output, 100) == b"ein\nzwei\n"
    assert (totals.messages_sent, totals.messages_received) == (3, 2)
    for descriptor in (source, output, target):
        os.close(descriptor)


def test_output_sink_escapes_and_terminates_last_line(tmp_path: Path) -> None:
    path = tmp_path / "shown"
    with path.open("wb") as file:
        sink = OutputSink(file.fileno(), Escaper())
        sink.feed(b"one\r\n\x1b[2J\xc3")
        sink.feed(b"\xa9")
        sink.finish()
    assert path.read_text() == "one\n\\x1b[2Jé\n"
