"""Transports on real sockets: UDP on loopback, ICMP if permitted, and errors."""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import Any

import pytest

from bothends.client.ping import (
    Pinger,
    ProbeEvent,
    ProbeFailure,
    ProbeReply,
    ProbeTracker,
    Summary,
    UnexpectedReply,
)
from bothends.client.ping_transports import IcmpTransport, UdpTransport, open_icmp, open_udp
from bothends.endpoints import Endpoint
from bothends.errors import EndpointError, SystemCallFailed, Unavailable
from bothends.sockets import ResolveError
from tests.client import peers

TOKEN = 0x5EED5EED
IDENTIFIER = os.getpid() & 0xFFFF  # raw sockets also receive the replies for tests that run concurrently


def ping(
    transport: UdpTransport | IcmpTransport, count: int = 3, size: int = 56, timeout: float = 5
) -> tuple[list[ProbeEvent], Summary]:
    tracker = ProbeTracker(count=count, interval=0.001, timeout=timeout, now=time.monotonic)
    with transport:
        events = list(Pinger(transport, tracker, token=TOKEN, size=size).run())
    return events, tracker.summary()


def needs_icmp(version: int) -> None:
    try:
        open_icmp("127.0.0.1" if version == 4 else "::1", identifier=1).close()
    except SystemCallFailed as error:
        pytest.skip(str(error))


# UDP


def test_udp_ping_echo_service() -> None:
    with peers.udp_peer(lambda data: [data]) as endpoint:
        events, summary = ping(open_udp(endpoint, token=TOKEN), 5)
    assert [event.number for event in events if isinstance(event, ProbeReply)] == [1, 2, 3, 4, 5]
    assert all(event.ttl and 0 <= event.seconds < 5 for event in events if isinstance(event, ProbeReply))
    assert (summary.intact, summary.lost, summary.duplicates) == (5, 0, 0)


@pytest.mark.parametrize("size", [16, 17, 1472, 65507])
def test_udp_ping_payload_sizes(size: int) -> None:
    with peers.udp_peer(lambda data: [data]) as endpoint:
        _, summary = ping(open_udp(endpoint, token=TOKEN), 2, size)
    assert summary.intact == 2


def test_udp_ping_datagram_too_large_fails() -> None:
    with peers.udp_peer(lambda data: [data]) as endpoint:
        events, summary = ping(open_udp(endpoint, token=TOKEN), 1, 65508)
    assert [event.errno for event in events if isinstance(event, ProbeFailure)] == [errno.EMSGSIZE]
    assert (summary.sent, summary.errors) == (1, 1)


def test_udp_ping_counts_duplicates_and_unexpected_replies() -> None:
    with peers.udp_peer(lambda data: [data, data, b"hello"]) as endpoint:
        events, summary = ping(open_udp(endpoint, token=TOKEN), 3)
    assert (summary.received, summary.lost) == (3, 0)
    assert summary.duplicates >= 2  # the last one may arrive after the run
    assert UnexpectedReply(5, "127.0.0.1") in events


def test_udp_ping_truncated_replies_are_corrupted() -> None:
    with peers.udp_peer(lambda data: [data[:20]]) as endpoint:
        events, summary = ping(open_udp(endpoint, token=TOKEN), 2)
    assert all(
        event.mismatch == "received 20 bytes of 56" for event in events if isinstance(event, ProbeReply)
    )
    assert (summary.received, summary.corrupted, summary.intact) == (2, 2, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_udp_ping_port_unreachable_is_matched_to_probe(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        port = sock.getsockname()[1]
    events, summary = ping(open_udp(Endpoint("udp", host, port), token=TOKEN))
    failures = [event for event in events if isinstance(event, ProbeFailure)]
    assert [event.number for event in failures] == [1, 2, 3]
    assert {event.reason for event in failures} == {
        "destination unreachable: no socket is bound to the port [ECONNREFUSED]"
    }
    assert {event.source for event in failures} == {host}
    assert (summary.errors, summary.lost) == (3, 3)


def test_open_udp_rejects_other_schemes() -> None:
    with pytest.raises(EndpointError, match="echo service"):
        open_udp(Endpoint.parse("tcp://127.0.0.1:7"), token=TOKEN)


# ICMP


@pytest.mark.parametrize(("host", "version"), [("127.0.0.1", 4), ("::1", 6), ("[::1]", 6)])
@pytest.mark.parametrize("size", [0, 3, 56, 1473])
def test_icmp_ping_loopback(host: str, version: int, size: int) -> None:
    needs_icmp(version)
    transport = open_icmp(host, identifier=IDENTIFIER, ttl=9)
    assert (transport.version, "echo over a" in transport.description) == (version, True)
    events, summary = ping(transport, 3, size)
    assert (summary.intact, summary.lost, summary.strays) == (3, 0, 0)
    assert {event.size for event in events if isinstance(event, ProbeReply)} == {size + 8}


def test_open_icmp_family() -> None:
    needs_icmp(4)
    with open_icmp("localhost", identifier=1, family=4) as transport:
        assert transport.address.startswith("127.")


def failing_socket_factory(ping_errno: int, raw_errno: int) -> Any:
    def open_socket(family: int, kind: int, protocol: int) -> socket.socket:
        number = ping_errno if kind == socket.SOCK_DGRAM else raw_errno
        raise OSError(number, os.strerror(number))

    return open_socket


def test_open_icmp_without_permission_is_unavailable() -> None:
    with pytest.raises(Unavailable) as caught:
        open_icmp("127.0.0.1", identifier=1, socket_factory=failing_socket_factory(errno.EACCES, errno.EPERM))
    message = str(caught.value)
    assert "ping sockets fail with EACCES (Permission denied), raw sockets with EPERM" in message
    assert "net.ipv4.ping_group_range" in message
    assert "CAP_NET_RAW" in message
    assert message.endswith("bothends ping --udp 127.0.0.1 PORT")
    assert (caught.value.exit_status, caught.value.errno) == (69, errno.EPERM)
    assert isinstance(caught.value.__cause__, ExceptionGroup)


def test_open_icmp_without_ipv6_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="no IPv6"):
        open_icmp(
            "::1", identifier=1, socket_factory=failing_socket_factory(errno.EAFNOSUPPORT, errno.EAFNOSUPPORT)
        )


def test_open_icmp_out_of_descriptors_raises() -> None:
    with pytest.raises(SystemCallFailed, match="ulimit -n") as caught:
        open_icmp(
            "127.0.0.1", identifier=1, socket_factory=failing_socket_factory(errno.EMFILE, errno.EMFILE)
        )
    assert caught.value.exit_status == 1


def test_open_icmp_unknown_host_raises() -> None:
    def unknown(*_: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    with pytest.raises(ResolveError, match="cannot resolve the host nowhere: EAI_NONAME"):
        open_icmp("nowhere", identifier=1, resolver=unknown)


@pytest.mark.parametrize("host", ["", "*", "a b", "127.0.0.1:80", "1.2.3"])
def test_open_icmp_invalid_host_raises(host: str) -> None:
    with pytest.raises((EndpointError, ResolveError)):
        open_icmp(host, identifier=1, resolver=lambda *_: [])
