"""`bothends connect -l`: accept a connection, or receive datagrams."""

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
from tests.client.peers import TIMEOUT, closed_port
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import Running

TCP = rb"listening on tcp://127\.0\.0\.1:(\d+)"
UDP = rb"listening on udp://127\.0\.0\.1:(\d+)"


@contextmanager
def listening(*words: str, shown: bytes = TCP) -> Iterator[tuple[Running, int]]:
    """Run `connect -l`; yield the process and the port that it listens on."""
    with Running([*BOTHENDS, "connect", "-l", *words]) as listener:
        yield listener, int(listener.error_line(shown)[1])


def connect_to(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)


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
def test_listen_address_forms_and_bound_port(words: tuple[str, ...], shown: bytes) -> None:
    with listening(*words, shown=shown) as (listener, port):
        assert port != 0
        listener.write_input(b"hello")
        listener.close_input()
        with connect_to(port) as peer:
            peer.shutdown(socket.SHUT_WR)
            assert read_all(peer) == b"hello"
        assert listener.wait() == 0


def test_listen_on_given_port() -> None:
    port = closed_port()
    with listening("-p", str(port), "127.0.0.1") as (_, real):
        assert real == port


def test_both_directions_and_half_close() -> None:
    with listening("127.0.0.1:0") as (listener, port), connect_to(port) as peer:
        listener.write_input(b"from the listener\n")
        listener.close_input()
        assert read_all(peer) == b"from the listener\n"
        peer.sendall(b"from the caller\n")
        peer.close()
        listener.line(b"from the caller")
        assert listener.wait() == 0


def test_second_connection_is_refused() -> None:
    with listening("127.0.0.1:0", "-v") as (listener, port), connect_to(port) as peer:
        listener.error_line(rb"connected 127\.0\.0\.1#%d -> 127\.0\.0\.1#%d" % (port, peer.getsockname()[1]))
        with pytest.raises(ConnectionRefusedError):
            connect_to(port)


def test_peer_close_exits_with_stdin_open() -> None:
    with listening("127.0.0.1:0") as (listener, port):
        connect_to(port).close()
        assert listener.wait() == 0


def test_reset_exits_1() -> None:
    with listening("127.0.0.1:0") as (listener, port):
        with connect_to(port) as peer:
            peer.sendall(b"so far\n")
            listener.line(b"so far")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert listener.wait() == 1
        listener.error_line(rb"bothends: connection to tcp://127\.0\.0\.1:\d+ lost .*ECONNRESET.*")


def test_idle_connection_times_out() -> None:
    with listening("127.0.0.1:0", "-w", "0.3") as (listener, port), connect_to(port):
        assert listener.wait() == 124


def test_keep_accepts_next_after_reset() -> None:
    with listening("127.0.0.1:0", "-k") as (listener, port):
        for number in range(3):
            with connect_to(port) as peer:
                peer.sendall(b"caller %d\n" % number)
                listener.line(b"caller %d" % number)
                if number == 1:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        listener.error_line(rb"bothends: connection to .*ECONNRESET.*")
        listener.process.send_signal(signal.SIGINT)
        assert listener.wait() == 130


def test_keep_serves_queued_connection() -> None:
    with (
        listening("127.0.0.1:0", "-k") as (listener, port),
        connect_to(port) as first,
        connect_to(port) as second,
    ):
        second.sendall(b"second\n")
        first.sendall(b"first\n")
        first.close()
        second.close()
        listener.text(rb"^first\nsecond\n")


def test_unix_socket_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with Running([*BOTHENDS, "connect", "-lU", str(path)]) as listener:
        listener.error_line(rb"listening on unix://.*a\.sock")
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))
            peer.sendall(b"through a file\n")
            listener.line(b"through a file")
        assert listener.wait() == 0
    assert not path.exists()


def test_seqpacket_messages_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with Running([*BOTHENDS, "connect", "-l", f"unix+seqpacket://{path}"]) as listener:
        listener.error_line(rb"listening on .*")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.connect(str(path))
            listener.write_input(b"one\ntwo\n")
            assert [peer.recv(100), peer.recv(100)] == [b"one", b"two"]
            peer.send(b"three")
            listener.line(b"three")


def test_port_in_use_exits_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            [*BOTHENDS, "connect", "-l", f"127.0.0.1:{taken.getsockname()[1]}"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=TIMEOUT,
            check=False,
        )
    assert done.returncode == 1
    assert b"EADDRINUSE" in done.stderr


def test_send_writes_text_and_exits() -> None:
    with listening("127.0.0.1:0", "--send", "hello") as (listener, port), connect_to(port) as peer:
        peer.shutdown(socket.SHUT_WR)
        assert read_all(peer) == b"hello\n"
        assert listener.wait() == 0


# Datagrams


def datagram_client(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(TIMEOUT)
    sock.connect(("127.0.0.1", port))
    return sock


def test_datagrams_are_sent_to_last_sender() -> None:
    with (
        listening("-uv", "127.0.0.1", "0", shown=UDP) as (listener, port),
        datagram_client(port) as one,
        datagram_client(port) as two,
    ):
        for sock, name in ((one, b"one"), (two, b"two"), (one, b"one again")):
            sock.send(name)
            listener.line(name)
            listener.write_input(b"to " + name + b"\n")
            assert sock.recv(100) == b"to " + name
        first = one.getsockname()[1]
        listener.nth_error_line(rb"receiving from 127\.0\.0\.1#%d: lines are sent there" % first, 2)
        listener.error_line(rb"receiving from 127\.0\.0\.1#%d: lines are sent there" % two.getsockname()[1])


def test_lines_are_queued_until_first_datagram() -> None:
    with listening("-u", "127.0.0.1", "0", "-q", "0.3", "--hex", shown=UDP) as (listener, port):
        listener.write_input(b"early\n\nlate")
        listener.close_input()
        with datagram_client(port) as sock:
            sock.send(b"")
            assert [sock.recv(100) for _ in range(3)] == [b"early", b"", b"late"]
        assert listener.wait() == 0
        listener.error_line(rb"<- 00000000  empty message")
        listener.error_line(rb"-> 00000000  65 61 72 6c 79 .* \|early\|")


def test_idle_after_datagram_times_out() -> None:
    with (
        listening("-u", "127.0.0.1", "0", "-w", "0.3", shown=UDP) as (listener, port),
        datagram_client(port) as sock,
    ):
        sock.send(b"hello")
        listener.line(b"hello")
        assert listener.wait() == 124


def test_send_answers_first_datagram() -> None:
    with listening("-u", "127.0.0.1", "0", "--send", "hello", "-q", "0.1", shown=UDP) as (listener, port):
        with datagram_client(port) as sock:
            sock.send(b"x")
            assert sock.recv(100) == b"hello"
        assert listener.wait() == 0


def test_wildcard_socket_sends_from_destination_address() -> None:
    with (
        listening("-u", "-4", ":0", shown=rb"listening on udp://:(\d+)") as (listener, port),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        sock.settimeout(TIMEOUT)
        sock.connect(("127.0.0.2", port))
        sock.send(b"hello")
        listener.line(b"hello")
        listener.write_input(b"answer\n")
        assert sock.recv(100) == b"answer"


def test_unnamed_unix_sender_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with Running([*BOTHENDS, "connect", "-luUv", str(path)]) as listener:
        listener.error_line(rb"listening on unix\+dgram://.*")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unnamed:
            unnamed.connect(str(path))
            unnamed.send(b"hello")
            listener.line(b"hello")
            listener.error_line(rb"receiving from unix, which has no address to send to")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as named:
            named.settimeout(TIMEOUT)
            named.bind(b"")
            named.connect(str(path))
            named.send(b"again")
            listener.line(b"again")
            listener.write_input(b"answer\n")
            assert named.recv(100) == b"answer"


def test_send_error_is_reported_and_next_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with Running([*BOTHENDS, "connect", "-luU", str(path)]) as listener:
        listener.error_line(rb"listening on unix\+dgram://.*")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as closed:
            closed.bind(b"")
            closed.sendto(b"hello", str(path))
            listener.line(b"hello")
        listener.write_input(b"answer\n")
        listener.error_line(rb"bothends: cannot reach unix\+dgram://.*ECONNREFUSED.*")
        assert listener.process.poll() is None


# At a terminal


def test_prompt_at_a_terminal(tmp_path: Path) -> None:
    with terminal("connect", "-l", "127.0.0.1", "0", state=tmp_path) as user:
        user.expect("listening on tcp://127.0.0.1:")
        user.expect("\r\n")
        port = int(user.output.split(b"127.0.0.1:")[1].split()[0])
        with connect_to(port) as peer:
            user.expect(f"connected 127.0.0.1#{port} -> 127.0.0.1#")
            user.expect("\x1b[?2004h")
            user.type("hello\r")
            assert peer.recv(100) == b"hello\n"
            peer.sendall(b"a reply\n")
            user.expect("a reply\r\n")
        user.expect("the peer closed the connection")
        assert user.wait() == 0


def test_interrupt_while_waiting_for_connection(tmp_path: Path) -> None:
    with terminal("connect", "-l", "127.0.0.1", "0", state=tmp_path) as user:
        user.expect("listening on tcp://127.0.0.1:")
        user.process.send_signal(signal.SIGINT)
        assert user.wait() == 130
        assert b"Traceback" not in user.output
