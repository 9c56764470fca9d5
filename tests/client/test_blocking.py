"""The blocking client against real peers, correct and faulty ones."""

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
    ConnectionLost,
    EndpointError,
    MessageTooLong,
    SystemCallFailed,
    TimeoutExpired,
    UnsupportedCombination,
)
from tests.client import peers


def test_request_returns_one_line() -> None:
    with peers.tcp_peer(peers.upper_lines) as endpoint, connect(endpoint) as connection:
        assert connection.request("hello") == b"HELLO"
        assert connection.request(b"again") == b"AGAIN"
        assert connection.peer.port == endpoint.port
        assert connection.local.host == "127.0.0.1"
        assert connection.endpoint == endpoint


def test_connect_accepts_endpoint_string() -> None:
    with peers.tcp_peer(peers.upper_lines) as endpoint, connect(str(endpoint), timeout=None) as connection:
        assert connection.request("hello") == b"HELLO"
    with pytest.raises(EndpointError):
        connect("tcp://127.0.0.1")


def test_request_reassembles_bytewise_reply() -> None:
    with peers.tcp_peer(peers.upper_lines_bytewise) as endpoint, connect(endpoint) as connection:
        assert connection.request("byte by byte") == b"BYTE BY BYTE"


def test_iteration_splits_coalesced_lines() -> None:
    with (
        peers.tcp_peer(lambda sock: sock.sendall(b"one\r\ntwo\nthree")) as endpoint,
        connect(endpoint) as connection,
    ):
        assert list(connection) == [b"one", b"two", b"three"]
        with pytest.raises(ConnectionLost) as caught:
            connection.receive_line()
        assert caught.value.errno == 0


def test_half_close_still_receives_until_eof() -> None:
    with peers.tcp_peer(peers.reply_at_eof) as endpoint, connect(endpoint) as connection:
        connection.send(b"all of ")
        connection.send_line("it")
        connection.half_close()
        connection.half_close()
        assert connection.receive_all() == b"ALL OF IT\n"
        assert connection.receive() == b""
        with pytest.raises(UnsupportedCombination):
            connection.send(b"more")


def test_exchange_large_echo_does_not_deadlock() -> None:
    data = os.urandom(8_000_000)
    with peers.tcp_peer(peers.echo_with_small_buffers) as endpoint, connect(endpoint) as connection:
        assert connection.exchange(data) == data


def test_request_reads_while_sending() -> None:
    line = b"x" * 8_000_000
    with peers.tcp_peer(peers.echo) as endpoint, connect(endpoint, limit=len(line)) as connection:
        assert connection.request(line) == line


def test_receive_exactly_returns_count_or_raises() -> None:
    with peers.tcp_peer(lambda sock: sock.sendall(b"abcdefg")) as endpoint, connect(endpoint) as connection:
        assert connection.receive_exactly(3) == b"abc"
        assert connection.receive(2) == b"de"
        with pytest.raises(ConnectionLost, match="waiting for 5 bytes"):
            connection.receive_exactly(5)
        assert connection.receive_all() == b"fg"


def test_request_after_reset_raises_with_errno() -> None:
    with peers.tcp_peer(peers.reset_after_request) as endpoint, connect(endpoint) as connection:
        with pytest.raises(ConnectionLost) as caught:
            connection.request("hello")
        assert caught.value.errno == errno.ECONNRESET
        assert isinstance(caught.value.__cause__, ConnectionResetError)


def test_request_closed_before_reply_raises() -> None:
    with peers.tcp_peer(peers.close_after_request) as endpoint, connect(endpoint) as connection:
        with pytest.raises(ConnectionLost) as caught:
            connection.request("hello")
        assert caught.value.errno == 0


def test_receive_line_timeout_keeps_partial_data() -> None:
    with (
        peers.tcp_peer_held_open(lambda sock: sock.sendall(b"half a li")) as endpoint,
        connect(endpoint) as connection,
    ):
        connection.timeout = 0.05
        with pytest.raises(TimeoutExpired) as caught:
            connection.receive_line()
        assert caught.value.seconds == 0.05
        assert connection.receive() == b"half a li"


def test_send_times_out_when_peer_does_not_read() -> None:
    with (
        peers.tcp_peer_held_open(lambda _: None) as endpoint,
        connect(endpoint, timeout=0.1) as connection,
        pytest.raises(TimeoutExpired, match="does not read"),
    ):
        connection.send(bytes(50_000_000))


def test_receive_line_over_limit_raises() -> None:
    with (
        peers.tcp_peer(lambda sock: sock.sendall(b"x" * 100)) as endpoint,
        connect(endpoint, limit=10) as connection,
        pytest.raises(MessageTooLong),
    ):
        connection.receive_line()


def test_connect_refused_raises() -> None:
    with pytest.raises(SystemCallFailed) as caught:
        connect(Endpoint("tcp", host="127.0.0.1", port=peers.closed_port()))
    assert caught.value.errno == errno.ECONNREFUSED


def test_concurrent_send_allowed_second_receive_rejected() -> None:
    with peers.tcp_peer(peers.upper_lines) as endpoint, connect(endpoint) as connection:
        received: list[bytes] = []
        operation = connection.core.receive_line()
        next(operation)  # one receiver is waiting
        with pytest.raises(UnsupportedCombination, match="at once"):
            connection.receive_line()
        operation.close()

        def receive() -> None:
            received.append(connection.receive_line())

        thread = threading.Thread(target=receive)
        thread.start()
        connection.send_line("hello")
        thread.join(peers.TIMEOUT)
        assert received == [b"HELLO"]


def test_datagram_request_returns_one_datagram() -> None:
    with peers.udp_peer(lambda data: [data.upper()]) as endpoint, connect(endpoint) as connection:
        assert connection.request("hello") == b"HELLO"
        assert connection.request(b"") == b""
        assert connection.request(bytes(65_507)) == bytes(65_507)
        assert connection.request("one\ntwo") == b"ONE\nTWO"


def test_datagram_request_is_retransmitted() -> None:
    received: list[bytes] = []

    def answer(data: bytes) -> list[bytes]:
        received.append(data)
        return [data.upper()] if len(received) == 3 else []

    with peers.udp_peer(answer) as endpoint, connect(endpoint, timeout=2.0) as connection:
        assert connection.request("hello", retries=4) == b"HELLO"
    assert received[:3] == [b"hello"] * 3


def test_datagram_request_without_reply_times_out() -> None:
    with (
        peers.udp_peer(lambda _: []) as endpoint,
        connect(endpoint, timeout=0.05) as connection,
        pytest.raises(TimeoutExpired, match="was lost, or nothing is listening there"),
    ):
        connection.request("hello", retries=1)


def test_duplicate_datagram_reply_is_discarded_by_next_request() -> None:
    with (
        peers.udp_peer(lambda data: [data.upper(), data.upper()]) as endpoint,
        connect(endpoint) as connection,
    ):
        assert connection.request("one") == b"ONE"
        # Wait for the duplicate; the next request discards it.
        while not connection.core.try_receive():
            pass
        assert connection.request("two") == b"TWO"


def test_datagram_from_other_source_is_ignored() -> None:
    with peers.udp_peer(lambda data: [data]) as endpoint, connect(endpoint, timeout=5.0) as connection:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(b"me!", (connection.local.host, connection.local.port))
        assert connection.request("hello") == b"hello"


def test_datagram_to_closed_port_is_refused() -> None:
    endpoint = Endpoint("udp", host="127.0.0.1", port=peers.closed_port(socket.SOCK_DGRAM))
    with connect(endpoint) as connection, pytest.raises(SystemCallFailed) as caught:
        connection.request("hello")
    assert caught.value.errno == errno.ECONNREFUSED


def test_datagram_too_large_raises() -> None:
    with (
        peers.udp_peer(lambda _: []) as endpoint,
        connect(endpoint) as connection,
        pytest.raises(SystemCallFailed, match="at most 65,507 bytes"),
    ):
        connection.send(bytes(65_508))


def test_datagram_socket_cannot_half_close() -> None:
    with peers.udp_peer(lambda _: []) as endpoint, connect(endpoint) as connection:
        for method in (connection.half_close, connection.receive_all, lambda: connection.exchange(b"")):
            with pytest.raises(UnsupportedCombination):
                method()
        with pytest.raises(UnsupportedCombination):
            connection.receive_exactly(1)


def test_unix_datagram_request(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with (
        peers.unix_datagram_peer(lambda data: [data[::-1]], path) as endpoint,
        connect(endpoint) as connection,
    ):
        assert connection.request("abc") == b"cba"
        assert connection.request(bytes(100_000)) == bytes(100_000)


def test_seqpacket_preserves_message_boundaries(tmp_path: Path) -> None:
    def upper_packets(connection: socket.socket) -> None:
        while packet := connection.recv(65536):
            connection.send(packet.upper())

    with (
        peers.seqpacket_peer(upper_packets, tmp_path / "a.sock") as endpoint,
        connect(endpoint) as connection,
    ):
        connection.send_line("one")
        connection.send_line("two\n")
        assert connection.receive(1) == b"ONE"
        assert connection.receive_line() == b"TWO\n"
        assert connection.request("three") == b"THREE"
        connection.half_close()
        assert connection.receive() == b""


def test_connection_wraps_any_socket() -> None:
    local, remote = socket.socketpair()
    with remote, Connection(local, Endpoint("unix", path="@pair")) as connection:
        remote.sendall(b"hello\n")
        assert connection.receive_line() == b"hello"
        assert connection.socket is local
        assert str(connection.peer) == "unix"
    assert local.fileno() < 0
