"""How a server is found and learned before it is attacked."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest

from bothends.attack.health import find_server
from bothends.attack.honest import learn
from bothends.endpoints import Endpoint
from tests.impair.running import echo, tcp_server


def answer_once(connection: socket.socket) -> None:
    connection.sendall(connection.recv(65_536))


def close_unanswered(connection: socket.socket) -> None:
    connection.recv(65_536)


@pytest.mark.parametrize(
    ("handler", "rule", "until_eof", "kept"),
    [
        (echo, "echo", False, True),
        (answer_once, "echo", True, False),
        (close_unanswered, "silent", False, False),
    ],
)
def test_learns_when_a_server_closes(
    handler: Callable[[socket.socket], None], rule: str, until_eof: bool, kept: bool
) -> None:
    with tcp_server(handler) as server:
        found = learn(server, None, sleep=lambda _: None)
    assert (found.rule, found.until_eof, found.kept) == (rule, until_eof, kept)
    assert found.concurrent
    assert not found.half_close


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize(
    ("bound", "is_found"),
    [
        ("127.0.0.1", True),
        ("0.0.0.0", True),
        ("::", True),
        ("::ffff:127.0.0.1", True),
        ("127.0.0.2", False),
    ],
)
def test_server_is_found_by_each_address_that_takes_its_connections(
    bound: str, is_found: bool, kind: socket.SocketKind
) -> None:
    with socket.socket(socket.AF_INET6 if ":" in bound else socket.AF_INET, kind) as server:
        if ":" in bound:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind((bound, 0))
        if kind is socket.SOCK_STREAM:
            server.listen()
        scheme = "tcp" if kind is socket.SOCK_STREAM else "udp"
        endpoint = Endpoint(scheme, host="127.0.0.1", port=server.getsockname()[1])
        assert find_server(endpoint) == ([os.getpid()] if is_found else [])
