"""The effect of each fault on the other end."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.client import faults
from bothends.endpoints import Endpoint
from bothends.errors import ConnectionLost
from bothends.sockets import open_connection
from tests.client.peers import TIMEOUT


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A TCP listener on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(TIMEOUT)
        yield sock


@pytest.fixture
def endpoint(listener: socket.socket) -> Endpoint:
    """The endpoint of the listener."""
    return Endpoint("tcp", host="127.0.0.1", port=listener.getsockname()[1])


@pytest.fixture
def pair(listener: socket.socket, endpoint: Endpoint) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The client's end and the server's end of a connection."""
    client = open_connection(endpoint, timeout=TIMEOUT)
    server, _ = listener.accept()
    server.settimeout(TIMEOUT)
    with client, server:
        yield client, server


Pair = tuple[socket.socket, socket.socket]


def test_reset_sends_rst(pair: Pair) -> None:
    faults.reset(pair[0])
    with pytest.raises(ConnectionResetError):
        pair[1].recv(1)


def test_half_close_leaves_receive_side_open(pair: Pair) -> None:
    client, server = pair
    faults.half_close(client)
    assert server.recv(1) == b""
    server.sendall(b"still here")
    assert client.recv(100) == b"still here"


def test_half_close_after_reset_raises(pair: Pair) -> None:
    client, server = pair
    faults.reset(server)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionLost) as caught:
        faults.half_close(client)
    assert caught.value.errno == errno.ENOTCONN


@given(st.binary(max_size=20), st.lists(st.integers(-2, 25)), st.integers(1, 25))
def test_split_loses_no_bytes(data: bytes, at: list[int], every: int) -> None:
    for chunks in (list(faults.split(data, at=at)), list(faults.split(data, every=every))):
        assert b"".join(chunks) == data
        assert all(chunks)


def test_split_cuts_at_given_positions() -> None:
    assert list(faults.split(b"abcdef", at=[4, 1])) == [b"a", b"bcd", b"ef"]
    assert list(faults.split(b"abcde", every=2)) == [b"ab", b"cd", b"e"]


def test_send_split_pieces_arrive_as_separate_reads(pair: Pair) -> None:
    client, server = pair
    reads: list[bytes] = []
    faults.send_split(client, b"abcdef", at=[1, 4], between=lambda: reads.append(server.recv(100)))
    assert [*reads, server.recv(100)] == [b"a", b"bcd", b"ef"]


def test_send_bytewise_sleeps_between_bytes(pair: Pair) -> None:
    client, server = pair
    pauses: list[float] = []
    faults.send_bytewise(client, b"abc", 0.5, sleep=pauses.append)
    assert pauses == [0.5, 0.5]
    assert server.recv(3, socket.MSG_WAITALL) == b"abc"


def test_send_bytewise_after_reset_raises(pair: Pair) -> None:
    client, server = pair
    faults.reset(server)
    with pytest.raises(ConnectionLost):
        faults.send_bytewise(client, bytes(100), sleep=lambda _: None)


def test_connect_and_reset_accepted_connection_is_reset(listener: socket.socket, endpoint: Endpoint) -> None:
    faults.connect_and_reset(endpoint)
    connection, _ = listener.accept()
    with connection, pytest.raises(ConnectionResetError):
        connection.recv(1)


def test_connect_without_reading_buffers_little(listener: socket.socket, endpoint: Endpoint) -> None:
    with faults.connect_without_reading(endpoint) as client:
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < 5000
        server, _ = listener.accept()
        with server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            assert faults.flood(server, bytes(65536), 10_000_000, timeout=0.05) < 100_000


def test_flood_stops_at_max_bytes(pair: Pair) -> None:
    assert faults.flood(pair[0], bytes(100), 250) == 250


def test_close_with_unread_data_sends_rst(pair: Pair) -> None:
    client, server = pair
    server.sendall(b"unread")
    faults.close_with_unread_data(client)
    with pytest.raises(ConnectionResetError):
        server.recv(1)
