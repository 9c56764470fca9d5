"""`bothends connect` in a pipe and for one request, as a program of its own, against real peers."""

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
from tests.client.peers import PATIENCE


def connect(
    *arguments: str | Endpoint, stdin: bytes | None = None, text: str = ""
) -> subprocess.CompletedProcess[bytes]:
    """Run it with `stdin` in a pipe; None gives it nothing to read at all."""
    return subprocess.run(
        [sys.executable, "-m", "bothends", "connect", *map(str, arguments)],
        capture_output=True,
        input=text.encode() or stdin or b"",
        env={**os.environ, "NO_COLOR": "1"},
        timeout=PATIENCE,
        check=False,
    )


# One request


@pytest.mark.parametrize(
    ("behave", "answer"),
    [
        (peers.shout, b"HELLO\n"),
        (peers.shout_byte_by_byte, b"HELLO\n"),
        (peers.answer_and_close, b"goodbye to hello"),
        (peers.answer_at_end, b"HELLO\n"),
        (peers.close_at_once, b""),
    ],
)
def test_one_request(behave: peers.Behaviour, answer: bytes) -> None:
    with peers.peer(behave) as where:
        done = connect(where, "--send", "hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, answer, b"")


def test_one_request_to_a_peer_that_never_closes() -> None:
    with peers.staying(peers.shout) as where:
        done = connect(where, "--send", "hello", "-q", "0.1")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"HELLO\n", b"")


def test_requests_go_out_in_their_order() -> None:
    with peers.peer(peers.shout) as where:
        done = connect(where, "--send", "one", "--send", "two", "--send", "three")
    assert (done.returncode, done.stdout) == (0, b"ONE\nTWO\nTHREE\n")


def test_a_request_without_a_newline() -> None:
    with peers.peer(peers.answer_at_end) as where:
        done = connect(where, "--send", "hello", "--no-newline")
    assert (done.returncode, done.stdout) == (0, b"HELLO")


def test_a_request_that_is_not_utf_8_passes_as_it_is() -> None:
    with peers.peer(peers.echo) as where:
        done = subprocess.run(
            [sys.executable, "-m", "bothends", "connect", str(where), "--send", b"\xff\xc3"],
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.stdout == b"\xff\xc3\n"


def test_a_reset_instead_of_an_answer() -> None:
    with peers.peer(peers.reset) as where:
        done = connect(where, "--send", "hello")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"bothends: connection to tcp://127.0.0.1:")
    assert b"ECONNRESET" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_no_answer_at_all() -> None:
    with peers.staying(peers.keep_silent) as where:
        done = connect(where, "--send", "hello", "-w", "1.3")
    assert (done.returncode, done.stdout) == (124, b"")
    assert b"time limit of 1.3 s passed while waiting for an answer" in done.stderr


def test_nobody_listens() -> None:
    done = connect("127.0.0.1", str(peers.closed_port()), "--send", "hello")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"ECONNREFUSED" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), b"missing argument"),
        (("127.0.0.1",), b"no port"),
        (("tpc://127.0.0.1:80",), b"did you mean 'tcp'"),
        (("127.0.0.1:80", "127.0.0.1:81"), b"one endpoint"),
        (("127.0.0.1:80", "-w", "0"), b"invalid value for '-w'"),
    ],
)
def test_usage(words: tuple[str, ...], said: bytes) -> None:
    done = connect(*words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr
    assert done.stderr.count(b"\n") == 1


# A pipe


def test_a_pipe_is_exact() -> None:
    data = os.urandom(3_000_000) + b"\r\n\0\xff"
    with peers.peer(peers.echo) as where:
        done = connect(where, stdin=data)
    assert done.returncode == 0
    assert done.stdout == data
    assert done.stderr == b""


def test_the_end_of_the_input_half_closes_and_the_answer_is_read_to_its_end() -> None:
    with peers.peer(peers.answer_at_end) as where:
        done = connect(where, text="one\ntwo")
    assert (done.returncode, done.stdout) == (0, b"ONE\nTWO")


def test_after_the_end_of_the_input_the_wait_can_be_bounded() -> None:
    with peers.staying(peers.shout) as where:
        done = connect(where, "-q", "1", text="hello\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"HELLO\n", b"")


def test_silence_in_a_pipe() -> None:
    with peers.staying(peers.shout) as where:
        done = connect(where, "-w", "1", text="hello\n")
    assert (done.returncode, done.stdout) == (124, b"HELLO\n")


def test_a_reset_in_a_pipe_comes_after_what_had_come() -> None:
    def answer_and_reset(connection: socket.socket) -> None:
        connection.sendall(b"so far")
        peers.reset(connection)

    with peers.peer(answer_and_reset) as where:
        done = connect(where, text="hello\n")
    assert (done.returncode, done.stdout) == (1, b"so far")
    assert b"ECONNRESET" in done.stderr


def test_both_addresses_and_the_totals() -> None:
    with peers.peer(peers.shout) as where:
        done = connect(where, "-v", "-s", "127.0.0.2", text="hello\n")
    assert done.stdout == b"HELLO\n"
    assert b"connected 127.0.0.2#" in done.stderr
    assert f" -> 127.0.0.1#{where.port}\n".encode() in done.stderr
    assert b"sent 6 bytes, received 6 bytes" in done.stderr


def test_words_for_an_endpoint() -> None:
    with peers.peer(peers.shout) as where:
        assert connect("-4", "localhost", str(where.port), "--send", "x").stdout == b"X\n"


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    with peers.serving(listener, peers.shout, 1):
        assert connect("-U", str(path), "--send", "x").stdout == b"X\n"


def test_packets_are_lines(tmp_path: Path) -> None:
    def shout(connection: socket.socket) -> None:
        while packet := connection.recv(65536):
            connection.send(packet.upper())

    with peers.packet_peer(shout, tmp_path / "a.sock") as where:
        done = connect(where, text="one\ntwo")
    assert (done.returncode, done.stdout) == (0, b"ONE\nTWO\n")


def test_a_reader_that_leaves_early_ends_it_quietly() -> None:
    def talk_on(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b"line\n" * 1000)

    with (
        peers.peer(talk_on) as where,
        subprocess.Popen(
            [sys.executable, "-m", "bothends", "connect", str(where)],
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
        assert process.wait(PATIENCE) == 128 + signal.SIGPIPE


def test_interrupted() -> None:
    with (
        peers.staying(lambda sock: sock.sendall(b"here\n")) as where,
        subprocess.Popen(
            [sys.executable, "-m", "bothends", "connect", str(where)],
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
        assert process.wait(PATIENCE) == 130


# Datagrams


def test_one_datagram() -> None:
    came: list[bytes] = []

    def answer(data: bytes) -> list[bytes]:
        came.append(data)
        return [data.upper()]

    with peers.datagram_peer(answer) as where:
        done = connect(where, "--send", "hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"HELLO", b"")
    assert came == [b"hello"]


def test_each_line_is_a_datagram_and_each_answer_a_line(tmp_path: Path) -> None:
    came: list[bytes] = []

    def answer(data: bytes) -> list[bytes]:
        came.append(data)
        return [data.upper()]

    with peers.unix_datagram_peer(answer, tmp_path / "a.sock") as where:
        done = connect(where, text="one\n\ntwo\nthree")
    assert (done.returncode, done.stdout) == (0, b"ONE\n\nTWO\nTHREE\n")
    assert came == [b"one", b"", b"two", b"three"]


def test_a_lost_datagram_is_sent_again_and_that_is_told() -> None:
    came: list[bytes] = []

    def answer(data: bytes) -> list[bytes]:
        came.append(data)
        return [data.upper()] if len(came) == 2 else []

    with peers.datagram_peer(answer) as where:
        done = connect(where, "--send", "hello", "-w", "3")
    assert (done.returncode, done.stdout) == (0, b"HELLO")
    assert done.stderr == b"no answer after 0.43 s, sending again (1 of 2)\n"


def test_no_answer_to_a_datagram() -> None:
    with peers.datagram_peer(lambda _: []) as where:
        done = connect(where, "--send", "hello", "-w", "0.2", "--retries", "0")
    assert (done.returncode, done.stdout) == (124, b"")
    assert done.stderr.endswith(
        b"time limit of 0.2 s passed while waiting for an answer; "
        b"no answer (a datagram or its answer may be lost, or nobody listens)\n"
    )


def test_one_lost_datagram_does_not_keep_the_others_from_being_asked() -> None:
    with peers.datagram_peer(lambda data: [] if data == b"two" else [data.upper()]) as where:
        done = connect(where, "-w", "0.6", "--retries", "0", text="one\ntwo\nthree\n")
    assert (done.returncode, done.stdout) == (124, b"ONE\nTHREE\n")
    assert b"waiting for an answer to 1 of 3 datagrams" in done.stderr


def test_second_answers_are_shown_too() -> None:
    with peers.datagram_peer(lambda data: [data.upper(), b"and again"]) as where:
        done = connect(where, "-q", "1", text="hello\n")
    assert (done.returncode, done.stdout) == (0, b"HELLO\nand again\n")


def test_nobody_has_the_port_open() -> None:
    where = Endpoint("udp", host="127.0.0.1", port=peers.closed_port(socket.SOCK_DGRAM))
    done = connect(where, "--send", "hello")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"ECONNREFUSED" in done.stderr


def test_a_datagram_that_is_too_large() -> None:
    with peers.datagram_peer(lambda _: []) as where:
        done = connect(where, stdin=bytes(65_508))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"EMSGSIZE" in done.stderr
    assert b"65,507 bytes at most" in done.stderr
