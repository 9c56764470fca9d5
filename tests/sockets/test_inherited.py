"""Inherited descriptors: fd://, roles, and errors for descriptors that cannot be served."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from bothends.endpoints import Endpoint
from bothends.errors import EndpointError, SystemCallFailed
from bothends.sockets import open_connection
from tests.sockets.tools import listening, needs_ipv6


def fd_endpoint(sock: socket.socket) -> str:
    """Detach a socket and return its endpoint."""
    return f"fd://{sock.detach()}"


def test_inherited_listening_socket() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    os.set_inheritable(sock.fileno(), True)
    number, port = sock.fileno(), sock.getsockname()[1]
    with listening(fd_endpoint(sock)) as listener:
        assert listener.role == "listener"
        assert str(listener.endpoint) == f"tcp://127.0.0.1:{port}"
        assert listener.requested_endpoint == Endpoint("fd", fd=number)
        assert listener.fileno() == number
        assert listener.socket.getblocking()
        assert not os.get_inheritable(number)
        with open_connection(listener.endpoint, timeout=5):
            pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


@needs_ipv6
@pytest.mark.parametrize(("v6only", "host"), [(0, ""), (1, "::")])
def test_inherited_wildcard_datagram_socket(v6only: int, host: str) -> None:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    sock.bind(("::", 0))
    with listening(fd_endpoint(sock)) as listener:
        assert listener.role == "datagrams"
        assert listener.is_message_oriented
        assert (listener.endpoint.scheme, listener.endpoint.host) == ("udp", host)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_inherited_connection(kind: int) -> None:
    local, peer = socket.socketpair(socket.AF_UNIX, kind)
    with peer, listening(fd_endpoint(local)) as listener:
        assert listener.role == "connection"
        assert listener.endpoint.scheme == "fd"
        assert listener.is_message_oriented == (kind != socket.SOCK_STREAM)
        listener.socket.send(b"hello")
        assert peer.recv(10) == b"hello"


def test_inherited_unix_socket_file_is_not_unlinked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("a")
    sock.listen()
    with listening(fd_endpoint(sock)) as listener:
        assert str(listener.endpoint) == "unix://a"
    assert (tmp_path / "a").is_socket()


def test_open_connection_uses_inherited_connection() -> None:
    local, peer = socket.socketpair()
    with peer, open_connection(Endpoint.parse(fd_endpoint(local))) as sock:
        sock.sendall(b"hello")
        assert peer.recv(10) == b"hello"


def test_open_connection_rejects_inherited_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        with pytest.raises(EndpointError, match="the socket is not connected; serve can serve it"):
            open_connection(Endpoint("fd", fd=sock.fileno()))
        assert sock.getsockname()


def test_inherited_non_socket_is_rejected_and_left_open(tmp_path: Path) -> None:
    with socket.socket() as sock:
        with pytest.raises(EndpointError, match="is neither listening nor connected"):
            listening(f"fd://{sock.fileno()}").__enter__()
        sock.bind(("127.0.0.1", 0))
    reader, writer = os.pipe()
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    for number, kind in ((reader, "a pipe"), (file, "a regular file"), (writer, "a pipe")):
        with pytest.raises(EndpointError, match=f"descriptor {number} is {kind}, not a socket"):
            listening(f"fd://{number}").__enter__()
        os.close(number)
        with pytest.raises(SystemCallFailed, match="must leave it open and inheritable") as caught:
            listening(f"fd://{number}").__enter__()
        assert caught.value.errno == errno.EBADF
