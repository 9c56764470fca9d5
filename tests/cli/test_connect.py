"""`bothends connect` in a pipe and for one request, as a process, against real peers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bothends.endpoints import Endpoint
from tests.client import peers
from tests.client.peers import TIMEOUT


def connect(
    *arguments: str | Endpoint, stdin: bytes | None = None, text: str = ""
) -> subprocess.CompletedProcess[bytes]:
    """Run `bothends connect` with `stdin` (or `text`) in a pipe; without either, stdin is empty."""
    return subprocess.run(
        [sys.executable, "-m", "bothends", "connect", *map(str, arguments)],
        capture_output=True,
        input=text.encode() or stdin or b"",
        env={**os.environ, "NO_COLOR": "1"},
        timeout=TIMEOUT,
        check=False,
    )


# One request


@pytest.mark.parametrize(
    ("handler", "reply"),
    [
        (peers.upper_lines, b"HELLO\n"),
        (peers.upper_lines_bytewise, b"HELLO\n"),
        (peers.reply_and_close, b"goodbye to hello"),
        (peers.reply_at_eof, b"HELLO\n"),
        (peers.close_after_request, b""),
    ],
)
def test_one_request(handler: peers.ConnectionHandler, reply: bytes) -> None:
    with peers.tcp_peer(handler) as endpoint:
        done = connect(endpoint, "--send", "hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, reply, b"")


def test_request_to_server_that_keeps_connection_open() -> None:
    with peers.tcp_peer_held_open(peers.upper_lines) as endpoint:
        done = connect(endpoint, "--send", "hello", "-q", "0.1")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"HELLO\n", b"")


def test_requests_are_sent_in_order() -> None:
    with peers.tcp_peer(peers.upper_lines) as endpoint:
        done = connect(endpoint, "--send", "one", "--send", "two", "--send", "three")
    assert (done.returncode, done.stdout) == (0, b"ONE\nTWO\nTHREE\n")


def test_no_newline_sends_bare_text() -> None:
    with peers.tcp_peer(peers.reply_at_eof) as endpoint:
        done = connect(endpoint, "--send", "hello", "--no-newline")
    assert (done.returncode, done.stdout) == (0, b"HELLO")


def test_request_with_invalid_utf8_is_sent_unchanged() -> None:
    with peers.tcp_peer(peers.echo) as endpoint:
        done = subprocess.run(
            [sys.executable, "-m", "bothends", "connect", str(endpoint), "--send", b"\xff\xc3"],
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert done.stdout == b"\xff\xc3\n"


def test_reset_before_reply_exits_1() -> None:
    with peers.tcp_peer(peers.reset_after_request) as endpoint:
        done = connect(endpoint, "--send", "hello")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"bothends: connection to tcp://127.0.0.1:")
    assert b"ECONNRESET" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_request_without_reply_times_out() -> None:
    with peers.tcp_peer_held_open(peers.read_without_replying) as endpoint:
        done = connect(endpoint, "--send", "hello", "-w", "1.3")
    assert (done.returncode, done.stdout) == (124, b"")
    assert b"timed out after 1.3 s while waiting for a reply" in done.stderr


def test_connection_refused() -> None:
    done = connect("127.0.0.1", str(peers.closed_port()), "--send", "hello")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"ECONNREFUSED" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), b"missing argument"),
        (("127.0.0.1",), b"no port"),
        (("tpc://127.0.0.1:80",), b"did you mean 'tcp'"),
        (("127.0.0.1:80", "127.0.0.1:81"), b"one endpoint"),
        (("127.0.0.1:80", "-w", "0"), b"invalid value for '-w'"),
    ],
)
def test_usage_errors_are_one_line(words: tuple[str, ...], message: bytes) -> None:
    done = connect(*words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert message in done.stderr
    assert done.stderr.count(b"\n") == 1


# A pipe


def test_pipe_preserves_bytes() -> None:
    data = os.urandom(3_000_000) + b"\r\n\0\xff"
    with peers.tcp_peer(peers.echo) as endpoint:
        done = connect(endpoint, stdin=data)
    assert done.returncode == 0
    assert done.stdout == data
    assert done.stderr == b""


def test_stdin_eof_half_closes_and_reads_to_eof() -> None:
    with peers.tcp_peer(peers.reply_at_eof) as endpoint:
        done = connect(endpoint, text="one\ntwo")
    assert (done.returncode, done.stdout) == (0, b"ONE\nTWO")


def test_quit_after_bounds_wait_after_stdin_eof() -> None:
    with peers.tcp_peer_held_open(peers.upper_lines) as endpoint:
        done = connect(endpoint, "-q", "1", text="hello\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"HELLO\n", b"")


def test_idle_pipe_times_out() -> None:
    with peers.tcp_peer_held_open(peers.upper_lines) as endpoint:
        done = connect(endpoint, "-w", "1", text="hello\n")
    assert (done.returncode, done.stdout) == (124, b"HELLO\n")


def test_reset_in_pipe_is_reported_after_received_data() -> None:
    def reply_and_reset(connection: socket.socket) -> None:
        connection.sendall(b"so far")
        peers.reset_after_request(connection)

    with peers.tcp_peer(reply_and_reset) as endpoint:
        done = connect(endpoint, text="hello\n")
    assert (done.returncode, done.stdout) == (1, b"so far")
    assert b"ECONNRESET" in done.stderr


def test_verbose_shows_addresses_and_totals() -> None:
    with peers.tcp_peer(peers.upper_lines) as endpoint:
        done = connect(endpoint, "-v", "-s", "127.0.0.2", text="hello\n")
    assert done.stdout == b"HELLO\n"
    assert b"connected 127.0.0.2#" in done.stderr
    assert f" -> 127.0.0.1#{endpoint.port}\n".encode() in done.stderr
    assert b"sent 6 bytes, received 6 bytes" in done.stderr


def test_endpoint_as_host_and_port() -> None:
    with peers.tcp_peer(peers.upper_lines) as endpoint:
        assert connect("-4", "localhost", str(endpoint.port), "--send", "x").stdout == b"X\n"


def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    with peers.serve_connections(listener, peers.upper_lines, 1):
        assert connect("-U", str(path), "--send", "x").stdout == b"X\n"


def test_seqpacket_messages_are_lines(tmp_path: Path) -> None:
    def shout(connection: socket.socket) -> None:
        while packet := connection.recv(65536):
            connection.send(packet.upper())

    with peers.seqpacket_peer(shout, tmp_path / "a.sock") as endpoint:
        done = connect(endpoint, text="one\ntwo")
    assert (done.returncode, done.stdout) == (0, b"ONE\nTWO\n")


def test_closed_stdout_exits_quietly() -> None:
    def send_forever(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b"line\n" * 1000)

    with (
        peers.tcp_peer(send_forever) as endpoint,
        subprocess.Popen(
            [sys.executable, "-m", "bothends", "connect", str(endpoint)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(TIMEOUT) == 128 + signal.SIGPIPE


def test_interrupt_exits_130_quietly() -> None:
    with (
        peers.tcp_peer_held_open(lambda sock: sock.sendall(b"here\n")) as endpoint,
        subprocess.Popen(
            [sys.executable, "-m", "bothends", "connect", str(endpoint)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b""
        assert process.wait(TIMEOUT) == 130


# Datagrams


def test_datagram_request() -> None:
    received: list[bytes] = []

    def reply(data: bytes) -> list[bytes]:
        received.append(data)
        return [data.upper()]

    with peers.udp_peer(reply) as endpoint:
        done = connect(endpoint, "--send", "hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"HELLO", b"")
    assert received == [b"hello"]


def test_datagram_lines_in_pipe(tmp_path: Path) -> None:
    received: list[bytes] = []

    def reply(data: bytes) -> list[bytes]:
        received.append(data)
        return [data.upper()]

    with peers.unix_datagram_peer(reply, tmp_path / "a.sock") as endpoint:
        done = connect(endpoint, text="one\n\ntwo\nthree")
    assert (done.returncode, done.stdout) == (0, b"ONE\n\nTWO\nTHREE\n")
    assert received == [b"one", b"", b"two", b"three"]


def test_lost_datagram_is_retransmitted_and_reported() -> None:
    received: list[bytes] = []

    def reply(data: bytes) -> list[bytes]:
        received.append(data)
        return [data.upper()] if len(received) == 2 else []

    with peers.udp_peer(reply) as endpoint:
        done = connect(endpoint, "--send", "hello", "-w", "3")
    assert (done.returncode, done.stdout) == (0, b"HELLO")
    assert done.stderr == b"no reply after 0.43 s, retrying (1 of 2)\n"


def test_datagram_without_reply_times_out() -> None:
    with peers.udp_peer(lambda _: []) as endpoint:
        done = connect(endpoint, "--send", "hello", "-w", "0.2", "--retries", "0")
    assert (done.returncode, done.stdout) == (124, b"")
    assert done.stderr.endswith(
        b"timed out after 0.2 s while waiting for a reply; "
        b"the datagram or its reply was lost, or nothing is listening there\n"
    )


def test_lost_datagram_does_not_block_later_ones() -> None:
    with peers.udp_peer(lambda data: [] if data == b"two" else [data.upper()]) as endpoint:
        done = connect(endpoint, "-w", "0.6", "--retries", "0", text="one\ntwo\nthree\n")
    assert (done.returncode, done.stdout) == (124, b"ONE\nTHREE\n")
    assert b"waiting for a reply to 1 of 3 datagrams" in done.stderr


def test_additional_datagram_replies_are_shown() -> None:
    with peers.udp_peer(lambda data: [data.upper(), b"and again"]) as endpoint:
        done = connect(endpoint, "-q", "1", text="hello\n")
    assert (done.returncode, done.stdout) == (0, b"HELLO\nand again\n")


def test_datagram_to_closed_port() -> None:
    endpoint = Endpoint("udp", host="127.0.0.1", port=peers.closed_port(socket.SOCK_DGRAM))
    done = connect(endpoint, "--send", "hello")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"ECONNREFUSED" in done.stderr


def test_oversized_datagram_exits_1() -> None:
    with peers.udp_peer(lambda _: []) as endpoint:
        done = connect(endpoint, stdin=bytes(65_508))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"EMSGSIZE" in done.stderr
    assert b"at most 65,507 bytes" in done.stderr
