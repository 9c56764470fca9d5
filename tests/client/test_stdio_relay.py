"""Exit policies with an injected clock, and the relay between real descriptors."""

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
    policy = ExitPolicy(quit_after=None, idle_timeout=None, started=100.0)
    assert policy.next_deadline() is None
    policy.all_sent = 101.0
    assert policy.next_deadline() == Deadline(101.0, "half-close")
    policy.half_closed = 101.0
    assert policy.next_deadline() is None


def test_exit_policy_quit_after_exits_when_idle() -> None:
    policy = ExitPolicy(quit_after=2.0, idle_timeout=None, started=100.0, all_sent=101.0, half_closed=101.0)
    assert policy.next_deadline() == Deadline(103.0, "exit")
    policy.on_received(1, 102.5)
    assert policy.next_deadline() == Deadline(104.5, "exit")


def test_exit_policy_exits_after_peer_eof_grace_period() -> None:
    policy = ExitPolicy(quit_after=None, idle_timeout=None, started=100.0, peer_eof=True)
    assert policy.next_deadline() == Deadline(100.0 + EOF_GRACE_PERIOD, "exit")


def test_exit_policy_idle_timeout_times_out() -> None:
    policy = ExitPolicy(quit_after=None, idle_timeout=5.0, started=100.0)
    assert policy.next_deadline() == Deadline(105.0, "time out")
    policy.on_received(0, 104.0)
    assert policy.next_deadline() == Deadline(109.0, "time out")


def test_request_exit_policy_half_closes_when_reply_complete() -> None:
    policy = RequestExitPolicy(quit_after=2.0, idle_timeout=10.0, started=100.0, expected_messages=2)
    assert policy.next_deadline() == Deadline(110.0, "time out")
    policy.all_sent = 100.0
    assert policy.next_deadline() == Deadline(100.0 + NO_REPLY_DELAY, "half-close")
    policy.on_received(1, 100.5)  # one line of two
    assert policy.next_deadline() == Deadline(100.5 + REPLY_IDLE, "half-close")
    policy.on_received(1, 100.6)
    assert policy.next_deadline() == Deadline(100.0, "half-close")
    policy.half_closed = 100.6
    assert policy.next_deadline() == Deadline(102.6, "exit")


def test_request_exit_policy_without_reply_times_out() -> None:
    policy = RequestExitPolicy(
        quit_after=2.0, idle_timeout=10.0, started=100.0, all_sent=100.0, half_closed=101.0
    )
    assert policy.next_deadline() == Deadline(110.0, "time out")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"one\ntwo\n", b"one\r\ntwo\r\n"),
        (b"has\r\nit\n", b"has\r\nit\r\n"),
        (b"\n\n\r\n\n", b"\r\n\r\n\r\n\r\n"),
        (b"a\rb\r\r\nno end", b"a\rb\r\r\nno end"),
    ],
)
def test_crlf_encoder_output_for_any_chunk_size(data: bytes, expected: bytes) -> None:
    for size in range(1, len(data) + 1):
        encoder = CrlfEncoder()
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        assert b"".join(map(encoder.feed, chunks)) == expected


@given(st.lists(st.text("a\r\n", max_size=6)))
def test_crlf_encoder_is_independent_of_chunking(pieces: list[str]) -> None:
    encoder = CrlfEncoder()
    chunks = [piece.encode() for piece in pieces]
    assert b"".join(map(encoder.feed, chunks)) == CrlfEncoder().feed(b"".join(chunks))


class RelayHarness:
    """A connection with a scripted peer, and pipes for its input and output."""

    def __init__(self) -> None:
        local, self.peer = socket.socketpair()
        self.peer.settimeout(TIMEOUT)
        self.connection = Connection(local, ENDPOINT)
        self.source, self.input = os.pipe()
        self.output, self.target = os.pipe()

    def close(self) -> None:
        """Close all descriptors."""
        self.peer.close()
        self.connection.close()
        for descriptor in (self.source, self.input, self.output, self.target):
            if descriptor >= 0:
                os.close(descriptor)

    def end_input(self) -> None:
        """Close the write end of standard input."""
        os.close(self.input)
        self.input = -1

    def relay(self, exit_policy: ExitPolicy | None = None) -> ClientRelay:
        """Return the relay under test."""
        exit_policy = exit_policy or ExitPolicy(None, TIMEOUT, time.monotonic())
        return ClientRelay(self.connection, self.source, OutputSink(self.target), exit_policy)


@pytest.fixture
def harness() -> Iterator[RelayHarness]:
    """See RelayHarness."""
    harness = RelayHarness()
    yield harness
    harness.close()


def start_thread(target: Callable[[], None]) -> threading.Thread:
    """Start a function in a thread."""
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def test_relay_large_echo_does_not_deadlock(harness: RelayHarness) -> None:
    data = os.urandom(3_000_000)

    def write_input() -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(harness.input, view) :]
        harness.end_input()

    def echo() -> None:
        while chunk := harness.peer.recv(65536):
            harness.peer.sendall(chunk)
        harness.peer.close()

    received = bytearray()

    def read() -> None:
        while len(received) < len(data):
            received.extend(os.read(harness.output, 65536))

    threads = [start_thread(target) for target in (write_input, echo, read)]
    totals = harness.relay().run()
    for thread in threads:
        thread.join(TIMEOUT)
    assert bytes(received) == data
    assert (totals.sent, totals.received) == (len(data), len(data))


def test_relay_applies_backpressure_when_output_is_blocked(harness: RelayHarness) -> None:
    # Standard output is blocked, so the peer must be stopped once the buffers are full.
    harness.end_input()
    errors: list[BaseException] = []

    def run_relay() -> None:
        try:
            harness.relay().run()
        except BrokenPipeError as error:
            errors.append(error)

    thread = start_thread(run_relay)
    harness.peer.settimeout(0.2)
    sent = 0
    try:
        while sent < 50_000_000:
            sent += harness.peer.send(bytes(65536))
    except TimeoutError:
        pass
    assert sent < 5_000_000
    os.close(harness.output)
    harness.output = -1
    thread.join(TIMEOUT)
    assert errors


def test_relay_outputs_reply_before_reporting_send_error(harness: RelayHarness) -> None:
    os.write(harness.input, b"more than the peer wanted")
    harness.peer.sendall(b"no thanks")
    harness.peer.close()
    with pytest.raises(ConnectionLost):
        harness.relay().run()
    assert os.read(harness.output, 100) == b"no thanks"


def test_relay_sends_whole_file_after_peer_half_close(harness: RelayHarness, tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    path = tmp_path / "data"
    path.write_bytes(data)
    harness.peer.shutdown(socket.SHUT_WR)
    received = bytearray()

    def read() -> None:
        while chunk := harness.peer.recv(65536):
            received.extend(chunk)

    thread = start_thread(read)
    with path.open("rb") as file:
        ClientRelay(
            harness.connection,
            file.fileno(),
            OutputSink(harness.target),
            ExitPolicy(None, TIMEOUT, time.monotonic()),
        ).run()
    harness.connection.close()
    thread.join(TIMEOUT)
    assert bytes(received) == data


def test_relay_ends_on_peer_close_with_open_input(harness: RelayHarness) -> None:
    harness.peer.close()
    harness.relay().run()


def test_relay_idle_timeout_raises(harness: RelayHarness) -> None:
    with pytest.raises(TimeoutExpired) as caught:
        harness.relay(ExitPolicy(None, 0.05, time.monotonic())).run()
    assert caught.value.seconds == 0.05


def test_relay_maps_packets_to_lines() -> None:
    local, remote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    source, input_pipe = os.pipe()
    output, target = os.pipe()
    os.write(input_pipe, b"one\ntwo\nthree")
    os.close(input_pipe)
    remote.send(b"ein")
    remote.send(b"zwei\n")
    with Connection(local, ENDPOINT) as connection, remote:
        remote.shutdown(socket.SHUT_WR)
        totals = ClientRelay(
            connection,
            source,
            OutputSink(target, terminate_messages=True),
            ExitPolicy(None, TIMEOUT, time.monotonic()),
        ).run()
        assert [remote.recv(100) for _ in range(3)] == [b"one", b"two", b"three"]
    assert os.read(output, 100) == b"ein\nzwei\n"
    assert (totals.messages_sent, totals.messages_received) == (3, 2)
    for descriptor in (source, output, target):
        os.close(descriptor)


def test_output_sink_escapes_and_terminates_last_line(tmp_path: Path) -> None:
    path = tmp_path / "output"
    with path.open("wb") as file:
        sink = OutputSink(file.fileno(), Escaper())
        sink.feed(b"one\r\n\x1b[2J\xc3")
        sink.feed(b"\xa9")
        sink.finish()
    assert path.read_text() == "one\n\\x1b[2Jé\n"
