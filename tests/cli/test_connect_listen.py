"""`bothends connect -l`: the end that is called."""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.terminals import terminal
from tests.client.peers import PATIENCE, closed_port
from tests.interop.ours import BOTHENDS
from tests.interop.running import Running

TCP = rb"listening on tcp://127\.0\.0\.1:(\d+)"
UDP = rb"listening on udp://127\.0\.0\.1:(\d+)"


@contextmanager
def listening(*words: str, shown: bytes = TCP) -> Iterator[tuple[Running, int]]:
    """Ours, listening, and its real port."""
    with Running([*BOTHENDS, "connect", "-l", *words]) as ours:
        yield ours, int(ours.error_line(shown)[1])


def call(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("127.0.0.1", "0"), TCP),
        (("127.0.0.1:0",), TCP),
        (("tcp://127.0.0.1:0",), TCP),
        (("-s", "127.0.0.1", "0"), TCP),
        (("-s", "127.0.0.1", ":0"), TCP),
        (("-p", "0", "127.0.0.1"), TCP),
        (("-p", "0", "-s", "127.0.0.1"), TCP),
        (("-n4p", "0", "127.0.0.1"), TCP),
        ((":0",), rb"listening on tcp://:(\d+)"),
        (("0",), rb"listening on tcp://:(\d+)"),
        (("-p", "0"), rb"listening on tcp://:(\d+)"),
        (("-4", "localhost", "0"), TCP),
    ],
)
def test_it_is_told_where_to_listen_in_every_way_and_tells_the_real_port(
    words: tuple[str, ...], shown: bytes
) -> None:
    with listening(*words, shown=shown) as (ours, port):
        assert port != 0
        ours.say(b"hello")
        ours.end_input()
        with call(port) as peer:
            peer.shutdown(socket.SHUT_WR)
            assert read_all(peer) == b"hello"
        assert ours.end() == 0


def test_a_given_port_is_the_port() -> None:
    port = closed_port()
    with listening("-p", str(port), "127.0.0.1") as (_, real):
        assert real == port


def test_both_directions_and_half_close() -> None:
    with listening("127.0.0.1:0") as (ours, port), call(port) as peer:
        ours.say(b"from the listener\n")
        ours.end_input()
        assert read_all(peer) == b"from the listener\n"
        peer.sendall(b"from the caller\n")
        peer.close()
        ours.line(b"from the caller")
        assert ours.end() == 0


def test_once_it_is_called_nobody_else_can_call() -> None:
    with listening("127.0.0.1:0", "-v") as (ours, port), call(port) as peer:
        ours.error_line(rb"connected 127\.0\.0\.1#%d -> 127\.0\.0\.1#%d" % (port, peer.getsockname()[1]))
        with pytest.raises(ConnectionRefusedError):
            call(port)


def test_the_callers_close_ends_it_although_the_input_stays_open() -> None:
    with listening("127.0.0.1:0") as (ours, port):
        call(port).close()
        assert ours.end() == 0


def test_a_reset_is_told_and_a_failure() -> None:
    with listening("127.0.0.1:0") as (ours, port):
        with call(port) as peer:
            peer.sendall(b"so far\n")
            ours.line(b"so far")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert ours.end() == 1
        ours.error_line(rb"bothends: connection to tcp://127\.0\.0\.1:\d+ lost .*ECONNRESET.*")


def test_silence_is_bounded() -> None:
    with listening("127.0.0.1:0", "-w", "0.3") as (ours, port), call(port):
        assert ours.end() == 124


def test_keep_goes_on_after_each_even_after_a_reset() -> None:
    with listening("127.0.0.1:0", "-k") as (ours, port):
        for number in range(3):
            with call(port) as peer:
                peer.sendall(b"caller %d\n" % number)
                ours.line(b"caller %d" % number)
                if number == 1:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ours.error_line(rb"bothends: connection to .*ECONNRESET.*")
        ours.process.send_signal(signal.SIGINT)
        assert ours.end() == 130


def test_keep_serves_who_waited_in_the_queue() -> None:
    with listening("127.0.0.1:0", "-k") as (ours, port), call(port) as first, call(port) as second:
        second.sendall(b"second\n")
        first.sendall(b"first\n")
        first.close()
        second.close()
        ours.text(rb"^first\nsecond\n")


def test_a_unix_socket_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with Running([*BOTHENDS, "connect", "-lU", str(path)]) as ours:
        ours.error_line(rb"listening on unix://.*a\.sock")
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))
            peer.sendall(b"through a file\n")
            ours.line(b"through a file")
        assert ours.end() == 0
    assert not path.exists()


def test_packets_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with Running([*BOTHENDS, "connect", "-l", f"unix+seqpacket://{path}"]) as ours:
        ours.error_line(rb"listening on .*")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.connect(str(path))
            ours.say(b"one\ntwo\n")
            assert [peer.recv(100), peer.recv(100)] == [b"one", b"two"]
            peer.send(b"three")
            ours.line(b"three")


def test_a_taken_port_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            [*BOTHENDS, "connect", "-l", f"127.0.0.1:{taken.getsockname()[1]}"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 1
    assert b"EADDRINUSE" in done.stderr


def test_one_answer_and_away() -> None:
    with listening("127.0.0.1:0", "--send", "hello") as (ours, port), call(port) as peer:
        peer.shutdown(socket.SHUT_WR)
        assert read_all(peer) == b"hello\n"
        assert ours.end() == 0


# Datagrams


def asker(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE)
    sock.connect(("127.0.0.1", port))
    return sock


def test_datagrams_are_answered_to_the_one_heard_last() -> None:
    with (
        listening("-uv", "127.0.0.1", "0", shown=UDP) as (ours, port),
        asker(port) as one,
        asker(port) as two,
    ):
        for sock, name in ((one, b"one"), (two, b"two"), (one, b"one again")):
            sock.send(name)
            ours.line(name)
            ours.say(b"to " + name + b"\n")
            assert sock.recv(100) == b"to " + name
        ours.nth_error_line(rb"127\.0\.0\.1#%d is heard: answers go there" % one.getsockname()[1], 2)
        ours.error_line(rb"127\.0\.0\.1#%d is heard: answers go there" % two.getsockname()[1])


def test_lines_wait_for_someone_to_send_them_to() -> None:
    with listening("-u", "127.0.0.1", "0", "-q", "0.3", "--hex", shown=UDP) as (ours, port):
        ours.say(b"early\n\nlate")
        ours.end_input()
        with asker(port) as sock:
            sock.send(b"")
            assert [sock.recv(100) for _ in range(3)] == [b"early", b"", b"late"]
        assert ours.end() == 0
        ours.error_line(rb"<- 00000000  an empty message")
        ours.error_line(rb"-> 00000000  65 61 72 6c 79 .* \|early\|")


def test_silence_after_a_datagram_is_a_failure() -> None:
    with listening("-u", "127.0.0.1", "0", "-w", "0.3", shown=UDP) as (ours, port), asker(port) as sock:
        sock.send(b"hello")
        ours.line(b"hello")
        assert ours.end() == 124


def test_one_prepared_answer() -> None:
    with listening("-u", "127.0.0.1", "0", "--send", "hello", "-q", "0.1", shown=UDP) as (ours, port):
        with asker(port) as sock:
            sock.send(b"x")
            assert sock.recv(100) == b"hello"
        assert ours.end() == 0


def test_every_interface_answers_from_the_address_that_was_asked() -> None:
    with (
        listening("-u", "-4", ":0", shown=rb"listening on udp://:(\d+)") as (ours, port),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.2", port))
        sock.send(b"hello")
        ours.line(b"hello")
        ours.say(b"answer\n")
        assert sock.recv(100) == b"answer"


def test_a_unix_sender_without_a_name_cannot_be_answered(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with Running([*BOTHENDS, "connect", "-luUv", str(path)]) as ours:
        ours.error_line(rb"listening on unix\+dgram://.*")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
            nameless.connect(str(path))
            nameless.send(b"hello")
            ours.line(b"hello")
            ours.error_line(rb"unix is heard, and has no name to answer to")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as named:
            named.settimeout(PATIENCE)
            named.bind(b"")
            named.connect(str(path))
            named.send(b"again")
            ours.line(b"again")
            ours.say(b"answer\n")
            assert named.recv(100) == b"answer"


def test_an_answer_that_nobody_takes_is_told_and_the_next_may_fare_better(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with Running([*BOTHENDS, "connect", "-luU", str(path)]) as ours:
        ours.error_line(rb"listening on unix\+dgram://.*")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
            gone.bind(b"")
            gone.sendto(b"hello", str(path))
            ours.line(b"hello")
        ours.say(b"answer\n")
        ours.error_line(rb"bothends: cannot reach unix\+dgram://.*ECONNREFUSED.*")
        assert ours.process.poll() is None


# At a terminal


def test_at_a_terminal(tmp_path: Path) -> None:
    with terminal("connect", "-l", "127.0.0.1", "0", state=tmp_path) as user:
        user.expect("listening on tcp://127.0.0.1:")
        user.expect("\r\n")
        port = int(user.shown.split(b"127.0.0.1:")[1].split()[0])
        with call(port) as peer:
            user.expect(f"connected 127.0.0.1#{port} -> 127.0.0.1#")
            user.expect("\x1b[?2004h")
            user.type("hello\r")
            assert peer.recv(100) == b"hello\n"
            peer.sendall(b"and to you\n")
            user.expect("and to you\r\n")
        user.expect("the peer closed the connection")
        assert user.leave() == 0


def test_interrupted_while_nobody_calls(tmp_path: Path) -> None:
    with terminal("connect", "-l", "127.0.0.1", "0", state=tmp_path) as user:
        user.expect("listening on tcp://127.0.0.1:")
        user.process.send_signal(signal.SIGINT)
        assert user.leave() == 130
        assert b"Traceback" not in user.shown
