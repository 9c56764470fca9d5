"""Standard input and output as a connection: over pipes, files, and a socket under inetd."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bothends.sockets.stdio import StdioRelay

# Serves its one connection: sends back upper case until EOF, then "bye".
SERVER = """
import sys
from bothends.endpoints import Endpoint
from bothends.sockets import open_listeners
(listener,) = open_listeners(Endpoint.parse("stdio:"))
assert listener.role == "connection" and listener.endpoint.is_stream, listener
while data := listener.socket.recv(65536):
    listener.socket.sendall(data.upper())
listener.socket.sendall(b"bye")
listener.close()
sys.exit(0 if listener.wait_flushed(30) else 1)
"""


def test_stdio_over_pipes() -> None:
    completed = subprocess.run(
        [sys.executable, "-c", SERVER], input=b"a" * 300_000, capture_output=True, check=True
    )
    assert completed.stdout == b"A" * 300_000 + b"bye"
    assert completed.stderr == b""


def test_stdio_from_file_to_file(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"hello")
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as sink:
        subprocess.run([sys.executable, "-c", SERVER], stdin=source, stdout=sink, check=True)
    assert (tmp_path / "out").read_bytes() == b"HELLObye"


def test_stdio_socket_under_inetd() -> None:
    local, remote = socket.socketpair()
    with local:
        with remote:
            child = subprocess.Popen(
                [sys.executable, "-c", SERVER], stdin=remote.fileno(), stdout=remote.fileno()
            )
        local.sendall(b"hello")
        local.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: local.recv(100), b""))
        assert child.wait() == 0
    assert answer == b"HELLObye"


@pytest.fixture
def pipes() -> tuple[int, int, int, int]:
    """Two pipes: the relay's input and its write end, the read end of the relay's output and the output."""
    source, feed = os.pipe()
    result, sink = os.pipe()
    return source, feed, result, sink


def test_relay_input_eof_leaves_output_open(pipes: tuple[int, int, int, int]) -> None:
    source, feed, result, sink = pipes
    relay = StdioRelay(source, sink)
    with relay.service_socket:
        os.close(feed)
        assert relay.service_socket.recv(1) == b""
        relay.service_socket.sendall(b"still")
        assert os.read(result, 5) == b"still"
        assert not relay.wait_flushed(0)
    assert relay.wait_flushed(30)
    assert os.read(result, 1) == b""
    for descriptor in (source, result, sink):
        os.close(descriptor)


def test_relay_output_shutdown_leaves_input_open(pipes: tuple[int, int, int, int]) -> None:
    source, feed, result, sink = pipes
    relay = StdioRelay(source, sink)
    with relay.service_socket:
        relay.service_socket.sendall(b"all")
        relay.service_socket.shutdown(socket.SHUT_WR)
        assert os.read(result, 5) == b"all"
        assert os.read(result, 5) == b""
        os.write(feed, b"more")
        assert relay.service_socket.recv(5) == b"more"
        os.close(feed)
        assert relay.service_socket.recv(5) == b""
    assert relay.wait_flushed(30)
    for descriptor in (source, result, sink):
        os.close(descriptor)


def test_relay_closed_output_breaks_connection(pipes: tuple[int, int, int, int]) -> None:
    source, feed, result, sink = pipes
    relay = StdioRelay(source, sink)
    os.close(result)
    with relay.service_socket:
        relay.service_socket.sendall(b"a")
        assert relay.wait_flushed(30)
        with pytest.raises(BrokenPipeError):
            relay.service_socket.sendall(b"b")
        assert relay.service_socket.recv(1) == b""
    for descriptor in (feed, source, sink):
        os.close(descriptor)


def test_relay_handles_nonblocking_pipes(pipes: tuple[int, int, int, int]) -> None:
    source, feed, result, sink = pipes
    os.set_blocking(source, False)
    os.set_blocking(sink, False)
    relay = StdioRelay(source, sink)
    with relay.service_socket:
        os.write(feed, b"in")
        assert relay.service_socket.recv(5) == b"in"
        os.close(feed)
        relay.service_socket.sendall(b"b" * 200_000)
    received = b""
    while data := os.read(result, 65536):
        received += data
    assert received == b"b" * 200_000
    assert relay.wait_flushed(30)
    for descriptor in (source, result, sink):
        os.close(descriptor)
