"""The blocking client against real peers: the rows that a client must stand."""

from __future__ import annotations

import errno
import os
import socket
import threading
from pathlib import Path

import pytest

from bothends.client.blocking import Connection, connect
from bothends.endpoints import Endpoint
from bothends.errors import (
    CannotCarry,
    ConnectionLost,
    EndpointError,
    MessageTooLong,
    SystemRefused,
    TimeLimit,
)
from tests.client import peers


def test_a_line_out_and_a_line_in() -> None:
    with peers.peer(peers.shout) as where, connect(where) as connection:
        assert connection.request("hello") == b"HELLO"
        assert connection.request(b"again") == b"AGAIN"
        assert connection.peer.port == where.port
        assert connection.local.host == "127.0.0.1"
        assert connection.endpoint == where


def test_an_endpoint_may_be_text() -> None:
    with peers.peer(peers.shout) as where, connect(str(where), timeout=None) as connection:
        assert connection.request("hello") == b"HELLO"
    with pytest.raises(EndpointError):
        connect("tcp://127.0.0.1")


def test_an_answer_byte_by_byte_is_one_answer() -> None:
    with peers.peer(peers.shout_byte_by_byte) as where, connect(where) as connection:
        assert connection.request("byte by byte") == b"BYTE BY BYTE"


def test_two_answers_in_one_segment_are_two() -> None:
    with peers.peer(lambda sock: sock.sendall(b"one\r\ntwo\nthree")) as where, connect(where) as connection:
        assert list(connection) == [b"one", b"two", b"three"]
        with pytest.raises(ConnectionLost) as caught:
            connection.receive_line()
        assert caught.value.errno == 0


def test_half_close_and_read_on() -> None:
    with peers.peer(peers.answer_at_end) as where, connect(where) as connection:
        connection.send(b"all of ")
        connection.send_line("it")
        connection.finish()
        connection.finish()
        assert connection.receive_all() == b"ALL OF IT\n"
        assert connection.receive() == b""
        with pytest.raises(CannotCarry):
            connection.send(b"more")


def test_a_large_echo_does_not_deadlock() -> None:
    data = os.urandom(8_000_000)
    with peers.peer(peers.echo) as where, connect(where) as connection:
        assert connection.exchange(data) == data


def test_a_request_reads_while_it_sends() -> None:
    line = b"x" * 8_000_000
    with peers.peer(peers.echo) as where, connect(where, limit=len(line)) as connection:
        assert connection.request(line) == line


def test_exactly_so_many_bytes() -> None:
    with peers.peer(lambda sock: sock.sendall(b"abcdefg")) as where, connect(where) as connection:
        assert connection.receive_exactly(3) == b"abc"
        assert connection.receive(2) == b"de"
        with pytest.raises(ConnectionLost, match="waiting for 5 bytes"):
            connection.receive_exactly(5)
        assert connection.receive_all() == b"fg"


def test_a_reset_is_told_with_its_errno() -> None:
    with peers.peer(peers.reset) as where, connect(where) as connection:
        with pytest.raises(ConnectionLost) as caught:
            connection.request("hello")
        assert caught.value.errno == errno.ECONNRESET
        assert isinstance(caught.value.__cause__, ConnectionResetError)


def test_a_close_in_the_middle_is_told() -> None:
    with peers.peer(peers.close_at_once) as where, connect(where) as connection:
        with pytest.raises(ConnectionLost) as caught:
            connection.request("hello")
        assert caught.value.errno == 0


def test_a_silent_peer_runs_into_the_time_limit_and_nothing_is_lost() -> None:
    with peers.staying(lambda sock: sock.sendall(b"half a li")) as where, connect(where) as connection:
        connection.timeout = 0.05
        with pytest.raises(TimeLimit) as caught:
            connection.receive_line()
        assert caught.value.seconds == 0.05
        assert connection.receive() == b"half a li"


def test_a_peer_that_never_reads_runs_into_the_time_limit() -> None:
    with (
        peers.staying(lambda _: None) as where,
        connect(where, timeout=0.1) as connection,
        pytest.raises(TimeLimit, match="does not read"),
    ):
        connection.send(bytes(50_000_000))


def test_a_line_over_the_limit_is_told() -> None:
    with (
        peers.peer(lambda sock: sock.sendall(b"x" * 100)) as where,
        connect(where, limit=10) as connection,
        pytest.raises(MessageTooLong),
    ):
        connection.receive_line()


def test_a_refused_connection_is_told() -> None:
    with pytest.raises(SystemRefused) as caught:
        connect(Endpoint("tcp", host="127.0.0.1", port=peers.closed_port()))
    assert caught.value.errno == errno.ECONNREFUSED


def test_one_thread_may_send_while_another_receives_but_not_two_receive() -> None:
    with peers.peer(peers.shout) as where, connect(where) as connection:
        came: list[bytes] = []
        step = connection.steps.receive_line()
        next(step)  # one receiver, in the middle of its wait
        with pytest.raises(CannotCarry, match="two at once"):
            connection.receive_line()
        step.close()

        def receive() -> None:
            came.append(connection.receive_line())

        thread = threading.Thread(target=receive)
        thread.start()
        connection.send_line("hello")
        thread.join(peers.PATIENCE)
        assert came == [b"HELLO"]


def test_a_datagram_out_and_a_datagram_in() -> None:
    with peers.datagram_peer(lambda data: [data.upper()]) as where, connect(where) as connection:
        assert connection.request("hello") == b"HELLO"
        assert connection.request(b"") == b""
        assert connection.request(bytes(65_507)) == bytes(65_507)
        assert connection.request("one\ntwo") == b"ONE\nTWO"


def test_a_lost_datagram_is_sent_again() -> None:
    came: list[bytes] = []

    def answer(data: bytes) -> list[bytes]:
        came.append(data)
        return [data.upper()] if len(came) == 3 else []

    with peers.datagram_peer(answer) as where, connect(where, timeout=2.0) as connection:
        assert connection.request("hello", retries=4) == b"HELLO"
    assert came[:3] == [b"hello"] * 3


def test_no_answer_to_a_datagram_is_told() -> None:
    with (
        peers.datagram_peer(lambda _: []) as where,
        connect(where, timeout=0.05) as connection,
        pytest.raises(TimeLimit, match="may be lost, or nobody listens"),
    ):
        connection.request("hello", retries=1)


def test_the_second_answer_to_one_question_is_not_taken_for_the_answer_to_the_next() -> None:
    with (
        peers.datagram_peer(lambda data: [data.upper(), data.upper()]) as where,
        connect(where) as connection,
    ):
        assert connection.request("one") == b"ONE"
        # The second copy is on its way; once it is here, it is dropped by the next question.
        while not connection.steps.try_receive():
            pass
        assert connection.request("two") == b"TWO"


def test_a_datagram_from_elsewhere_is_not_taken() -> None:
    with peers.datagram_peer(lambda data: [data]) as where, connect(where, timeout=5.0) as connection:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"me!", (connection.local.host, connection.local.port))
        assert connection.request("hello") == b"hello"


def test_a_datagram_to_a_closed_port_is_told() -> None:
    where = Endpoint("udp", host="127.0.0.1", port=peers.closed_port(socket.SOCK_DGRAM))
    with connect(where) as connection, pytest.raises(SystemRefused) as caught:
        connection.request("hello")
    assert caught.value.errno == errno.ECONNREFUSED


def test_a_datagram_that_is_too_large_is_told() -> None:
    with (
        peers.datagram_peer(lambda _: []) as where,
        connect(where) as connection,
        pytest.raises(SystemRefused, match="65,507 bytes at most"),
    ):
        connection.send(bytes(65_508))


def test_a_datagram_socket_has_no_end() -> None:
    with peers.datagram_peer(lambda _: []) as where, connect(where) as connection:
        for verb in (connection.finish, connection.receive_all, lambda: connection.exchange(b"")):
            with pytest.raises(CannotCarry):
                verb()
        with pytest.raises(CannotCarry):
            connection.receive_exactly(1)


def test_datagrams_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with peers.unix_datagram_peer(lambda data: [data[::-1]], path) as where, connect(where) as connection:
        assert connection.request("abc") == b"cba"
        assert connection.request(bytes(100_000)) == bytes(100_000)


def test_packets_keep_their_boundaries(tmp_path: Path) -> None:
    def shout(connection: socket.socket) -> None:
        while packet := connection.recv(65536):
            connection.send(packet.upper())

    with peers.packet_peer(shout, tmp_path / "a.sock") as where, connect(where) as connection:
        connection.send_line("one")
        connection.send_line("two\n")
        assert connection.receive(1) == b"ONE"
        assert connection.receive_line() == b"TWO\n"
        assert connection.request("three") == b"THREE"
        connection.finish()
        assert connection.receive() == b""


def test_a_connection_can_be_made_of_any_socket() -> None:
    ours, theirs = socket.socketpair()
    with theirs, Connection(ours, Endpoint("unix", path="@pair")) as connection:
        theirs.sendall(b"hello\n")
        assert connection.receive_line() == b"hello"
        assert connection.socket is ours
        assert str(connection.peer) == "unix"
    assert ours.fileno() < 0
