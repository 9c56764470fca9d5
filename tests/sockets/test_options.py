"""Endpoint options are set on listeners, connecting sockets and accepted sockets."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from bothends.endpoints import OPTIONS, Endpoint
from bothends.errors import SystemCallFailed
from bothends.sockets import open_connection, open_listeners, prepare_accepted
from bothends.sockets.options import SOCKET_OPTIONS
from tests.sockets.tools import listening, needs_ipv6, needs_mptcp

SOL, TCP, IP = socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_IP


def test_every_endpoint_option_has_a_socket_option() -> None:
    elsewhere = {"family", "backlog", "mode", "trust", "header"}
    assert set(SOCKET_OPTIONS) | elsewhere == set(OPTIONS)


def read_option(sock: socket.socket, level: int, number: int, value: int | str | bytes) -> int | str | bytes:
    if isinstance(value, int):
        return sock.getsockopt(level, number)
    raw = sock.getsockopt(level, number, 64)
    return raw.rstrip(b"\0").decode() if isinstance(value, str) else raw


@pytest.mark.parametrize(
    ("scheme", "option", "level", "number", "value"),
    [
        ("tcp", "", TCP, socket.TCP_NODELAY, 1),
        ("tcp", "nodelay=0", TCP, socket.TCP_NODELAY, 0),
        pytest.param("mptcp", "", TCP, socket.TCP_NODELAY, 1, marks=needs_mptcp),
        ("tcp", "", SOL, socket.SO_KEEPALIVE, 0),
        ("tcp", "keepalive=1", SOL, socket.SO_KEEPALIVE, 1),
        ("tcp", "linger=5", SOL, socket.SO_LINGER, struct.pack("ii", 1, 5)),
        ("tcp", "linger=0", SOL, socket.SO_LINGER, struct.pack("ii", 1, 0)),
        ("tcp", "user_timeout=5000", TCP, socket.TCP_USER_TIMEOUT, 5000),
        ("tcp", "congestion=reno", TCP, socket.TCP_CONGESTION, "reno"),
        ("tcp", "ttl=7", IP, socket.IP_TTL, 7),
        ("tcp", "tos=16", IP, socket.IP_TOS, 16),
        ("tcp", "interface=lo", SOL, socket.SO_BINDTODEVICE, "lo"),
        ("tcp", "rcvbuf=20000", SOL, socket.SO_RCVBUF, 40000),
        ("tcp", "sndbuf=20000", SOL, socket.SO_SNDBUF, 40000),
        ("udp", "ttl=7", IP, socket.IP_TTL, 7),
        ("udp", "", SOL, socket.SO_BROADCAST, 0),
        ("udp", "broadcast=1", SOL, socket.SO_BROADCAST, 1),
        ("udp", "rcvbuf=20000", SOL, socket.SO_RCVBUF, 40000),
        ("udp", "", SOL, socket.SO_REUSEADDR, 0),
        ("udp", "reuseaddr=1", SOL, socket.SO_REUSEADDR, 1),
    ],
)
def test_option_is_set_on_listener_client_and_accepted(
    scheme: str, option: str, level: int, number: int, value: int | str | bytes
) -> None:
    with (
        listening(f"{scheme}://127.0.0.1:0?{option}") as listener,
        open_connection(listener.endpoint, timeout=5) as client,
    ):
        sockets = [listener.socket, client]
        if listener.role == "listener":
            accepted, _ = listener.socket.accept()
            prepare_accepted(accepted, listener.endpoint)
            sockets.append(accepted)
        try:
            assert [read_option(sock, level, number, value) for sock in sockets] == [value] * len(sockets)
        finally:
            for sock in sockets[2:]:
                sock.close()


def test_listener_only_options() -> None:
    with (
        listening("tcp://127.0.0.1:0?defer_accept=1&reuseport=1&maxseg=500") as listener,
        socket.socket() as client,
    ):
        assert listener.socket.getsockopt(SOL, socket.SO_REUSEADDR) == 1
        assert listener.socket.getsockopt(SOL, socket.SO_REUSEPORT) == 1
        assert listener.socket.getsockopt(TCP, socket.TCP_DEFER_ACCEPT) > 0
        client.connect(listener.socket.getsockname())
        client.sendall(b"x")  # defer_accept waits for data
        accepted, _ = listener.socket.accept()
        with accepted:
            # The TCP timestamps option takes 12 bytes of each segment (RFC 7323 section 3.2).
            assert accepted.getsockopt(TCP, socket.TCP_MAXSEG) <= 500


def test_reuseaddr_can_be_disabled() -> None:
    with listening("tcp://127.0.0.1:0?reuseaddr=0") as listener:
        assert listener.socket.getsockopt(SOL, socket.SO_REUSEADDR) == 0


@needs_ipv6
def test_ttl_and_tos_apply_to_both_families() -> None:
    with listening("udp://:0?ttl=7&tos=16") as listener:
        sock = listener.socket
        assert sock.getsockopt(IP, socket.IP_TTL) == 7
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) == 7
        assert sock.getsockopt(IP, socket.IP_TOS) == 16
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == 16


def can_set_mark() -> bool:
    with socket.socket() as sock:
        try:
            sock.setsockopt(SOL, socket.SO_MARK, 1)
        except PermissionError:
            return False
    return True


def test_mark_needs_privilege() -> None:
    endpoint = Endpoint.parse("udp://127.0.0.1:0?mark=4294967295")
    if can_set_mark():
        with listening(str(endpoint)) as listener:
            assert listener.socket.getsockopt(SOL, socket.SO_MARK, 4) == b"\xff" * 4
    else:
        with pytest.raises(SystemCallFailed, match=r"EPERM .*CAP_NET_ADMIN"):
            open_listeners(endpoint)


@pytest.mark.parametrize(
    ("option", "number", "hint"),
    [
        ("congestion=no-such", errno.ENOENT, "tcp_available_congestion_control"),
        ("interface=no-such", errno.ENODEV, "ip link"),
    ],
)
def test_option_error_names_the_option(option: str, number: int, hint: str) -> None:
    endpoint = Endpoint.parse(f"tcp://127.0.0.1:0?{option}")
    for open_endpoint in (open_listeners, open_connection):
        with pytest.raises(SystemCallFailed) as caught:
            open_endpoint(endpoint)
        assert caught.value.errno == number
        assert str(caught.value).startswith(f"cannot set option {option.partition('=')[0]} of {endpoint}: ")
        assert hint in caught.value.hint
        assert isinstance(caught.value.__cause__, OSError)


def test_linger_0_close_sends_rst() -> None:
    with listening("tcp://127.0.0.1:0") as listener:
        client = open_connection(listener.endpoint.with_options(linger=0), timeout=5)
        accepted, _ = listener.socket.accept()
        with accepted:
            client.close()
            with pytest.raises(ConnectionResetError):
                accepted.recv(1)
