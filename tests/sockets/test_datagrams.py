"""Datagrams: replies have the source address that requests were sent to, and truncation is reported."""

from __future__ import annotations

import socket
import struct
from typing import cast

import pytest

from bothends.sockets import enable_pktinfo, open_connection, receive_datagram, send_datagram
from tests.sockets.tools import listening, needs_ipv6

IP_PKTINFO = 8  # linux/in.h; not in the socket module


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("udp://0.0.0.0:0", "127.0.0.1"),
        ("udp://0.0.0.0:0", "127.0.0.2"),
        pytest.param("udp://:0", "127.0.0.2", marks=needs_ipv6),
        pytest.param("udp://:0", "::1", marks=needs_ipv6),
        pytest.param("udp://[::]:0", "::1", marks=needs_ipv6),
    ],
)
def test_reply_source_is_request_destination(text: str, destination: str) -> None:
    with listening(text) as listener:
        wildcard = enable_pktinfo(listener.socket)
        assert wildcard
        # A connected socket receives datagrams from its peer address only.
        with open_connection(listener.endpoint.with_host(destination)) as client:
            client.settimeout(30)
            client.send(b"request")
            data, truncated, sender, ancillary = receive_datagram(listener.socket, wildcard=wildcard)
            assert (data, truncated) == (b"request", False)
            assert ancillary
            assert send_datagram(listener.socket, b"reply", sender, ancillary) == 5
            assert client.recv(10) == b"reply"


def test_reply_without_pktinfo_uses_routed_source() -> None:
    with listening("udp://0.0.0.0:0") as listener, socket.socket(type=socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        client.sendto(b"request", ("127.0.0.2", listener.address.port))
        _, _, sender, ancillary = receive_datagram(listener.socket)
        assert ancillary == []
        send_datagram(listener.socket, b"reply", sender)
        assert client.recvfrom(10)[1][0] == "127.0.0.1"


@pytest.mark.parametrize("wildcard", [True, False])
@pytest.mark.parametrize(("size", "truncated"), [(0, True), (3, True), (4, False), (100, False)])
def test_receive_datagram_reports_truncation(wildcard: bool, size: int, truncated: bool) -> None:
    with listening("udp://0.0.0.0:0" if wildcard else "udp://127.0.0.1:0") as listener:
        assert enable_pktinfo(listener.socket) == wildcard
        with open_connection(listener.endpoint.with_host("127.0.0.1")) as client:
            client.send(b"four")
            answer = receive_datagram(listener.socket, size, wildcard=wildcard)
            assert answer[:3] == (b"four"[:size], truncated, client.getsockname())


@pytest.mark.parametrize("size", [0, 65507])
def test_send_and_receive_min_and_max_datagram(size: int) -> None:
    with listening("udp://0.0.0.0:0") as listener:
        wildcard = enable_pktinfo(listener.socket)
        with open_connection(listener.endpoint.with_host("127.0.0.1")) as client:
            client.send(b"a" * size)
            data, truncated, sender, ancillary = receive_datagram(listener.socket, wildcard=wildcard)
            assert (len(data), truncated) == (size, False)
            send_datagram(listener.socket, data, sender, ancillary)
            assert len(client.recv(70000)) == size


def test_enable_pktinfo_ignores_unix_and_stream_sockets() -> None:
    with listening("unix+dgram://@") as listener, open_connection(listener.endpoint) as client:
        assert not enable_pktinfo(listener.socket)
        client.send(b"a" * 100_000)
        data, truncated, sender, ancillary = receive_datagram(listener.socket, 200_000)
        assert (len(data), truncated) == (100_000, False)
        send_datagram(listener.socket, b"answer", sender, ancillary)
        assert client.recv(10) == b"answer"
    with listening("tcp://127.0.0.1:0") as listener:
        assert not enable_pktinfo(listener.socket)


def test_send_datagram_falls_back_when_source_is_unusable() -> None:
    broadcast = struct.pack("=i4s4s", 0, socket.inet_aton("255.255.255.255"), bytes(4))
    with listening("udp://0.0.0.0:0") as listener, socket.socket(type=socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        ancillary = [(socket.IPPROTO_IP, IP_PKTINFO, broadcast)]
        send_datagram(listener.socket, b"a", client.getsockname(), ancillary)
        assert client.recv(10) == b"a"


class SocketWithAncillary:
    """A socket that receives a datagram with this ancillary data."""

    def __init__(self, *ancillary: tuple[int, int, bytes]) -> None:
        self.ancillary = list(ancillary)

    def recvmsg(self, *_: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, str]:
        return b"", self.ancillary, 0, ""


def ancillary_for(received: tuple[int, int, bytes]) -> list[tuple[int, int, bytes]]:
    """Return the ancillary data for the reply to a datagram."""
    return receive_datagram(cast(socket.socket, SocketWithAncillary(received)), wildcard=True)[3]


def test_reply_pktinfo_for_multicast_and_link_local() -> None:
    def reply_ancillary(address: str) -> list[tuple[int, int, bytes]]:
        value = struct.pack("=16sI", socket.inet_pton(socket.AF_INET6, address), 7)
        return ancillary_for((socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, value))

    def interface(address: str) -> int:
        ((_, _, value),) = reply_ancillary(address)
        return int.from_bytes(value[16:], "little" if struct.pack("=H", 1)[0] else "big")

    assert reply_ancillary("ff02::1") == []
    assert interface("fe80::1") == 7
    assert interface("2001:db8::1") == 0
    assert ancillary_for((socket.SOL_SOCKET, 1, b"")) == []
