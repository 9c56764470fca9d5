"""Wires on real sockets: UDP on loopback, ICMP where it is permitted, and the words where it isn't."""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import Any

import pytest

from bothends.client.ping import Bookkeeping, Event, Failure, Pinger, Reply, Stray, Summary
from bothends.client.ping_transports import IcmpWire, UdpWire, open_icmp, open_udp
from bothends.endpoints import Endpoint
from bothends.errors import EndpointError, SystemRefused, Unavailable
from bothends.sockets import NameRefused
from tests.client import peers

TOKEN = 0x5EED5EED
IDENTIFIER = os.getpid() & 0xFFFF  # raw sockets hear the answers to other tests at the same time too


def ping(
    wire: UdpWire | IcmpWire, count: int = 3, size: int = 56, timeout: float = 5
) -> tuple[list[Event], Summary]:
    book = Bookkeeping(count=count, interval=0.001, timeout=timeout, now=time.monotonic)
    with wire:
        events = list(Pinger(wire, book, token=TOKEN, size=size).run())
    return events, book.summary()


def needs_icmp(version: int) -> None:
    try:
        open_icmp("127.0.0.1" if version == 4 else "::1", identifier=1).close()
    except SystemRefused as error:
        pytest.skip(str(error))


# UDP


def test_an_echo_service() -> None:
    with peers.datagram_peer(lambda data: [data]) as where:
        events, summary = ping(open_udp(where, token=TOKEN), 5)
    assert [event.number for event in events if isinstance(event, Reply)] == [1, 2, 3, 4, 5]
    assert all(event.ttl and 0 <= event.seconds < 5 for event in events if isinstance(event, Reply))
    assert (summary.intact, summary.lost, summary.duplicates) == (5, 0, 0)


@pytest.mark.parametrize("size", [16, 17, 1472, 65507])
def test_sizes(size: int) -> None:
    with peers.datagram_peer(lambda data: [data]) as where:
        _, summary = ping(open_udp(where, token=TOKEN), 2, size)
    assert summary.intact == 2


def test_a_datagram_too_large_to_be_sent() -> None:
    with peers.datagram_peer(lambda data: [data]) as where:
        events, summary = ping(open_udp(where, token=TOKEN), 1, 65508)
    assert [event.errno for event in events if isinstance(event, Failure)] == [errno.EMSGSIZE]
    assert (summary.sent, summary.errors) == (1, 1)


def test_a_service_that_says_everything_twice_and_more() -> None:
    with peers.datagram_peer(lambda data: [data, data, b"hello"]) as where:
        events, summary = ping(open_udp(where, token=TOKEN), 3)
    assert (summary.received, summary.lost) == (3, 0)
    assert summary.duplicates >= 2  # the last one may come after we have left
    assert Stray(5, "127.0.0.1") in events


def test_a_service_that_is_no_echo() -> None:
    with peers.datagram_peer(lambda data: [data[:20]]) as where:
        events, summary = ping(open_udp(where, token=TOKEN), 2)
    assert all(event.flaw == "20 bytes came back of 56" for event in events if isinstance(event, Reply))
    assert (summary.received, summary.corrupted, summary.intact) == (2, 2, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_nobody_has_the_port_and_the_error_knows_which_probe(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        port = sock.getsockname()[1]
    events, summary = ping(open_udp(Endpoint("udp", host, port), token=TOKEN))
    failures = [event for event in events if isinstance(event, Failure)]
    assert [event.number for event in failures] == [1, 2, 3]
    assert {event.words for event in failures} == {
        "destination unreachable: nobody has the port open [ECONNREFUSED]"
    }
    assert {event.source for event in failures} == {host}
    assert (summary.errors, summary.lost) == (3, 3)


def test_only_udp_has_an_echo_of_datagrams() -> None:
    with pytest.raises(EndpointError, match="echo service"):
        open_udp(Endpoint.parse("tcp://127.0.0.1:7"), token=TOKEN)


# ICMP


@pytest.mark.parametrize(("host", "version"), [("127.0.0.1", 4), ("::1", 6), ("[::1]", 6)])
@pytest.mark.parametrize("size", [0, 3, 56, 1473])
def test_this_machine_answers(host: str, version: int, size: int) -> None:
    needs_icmp(version)
    wire = open_icmp(host, identifier=IDENTIFIER, ttl=9)
    assert (wire.version, "echo over a" in wire.how) == (version, True)
    events, summary = ping(wire, 3, size)
    assert (summary.intact, summary.lost, summary.strays) == (3, 0, 0)
    assert {event.size for event in events if isinstance(event, Reply)} == {size + 8}


def test_the_family_that_is_asked_for() -> None:
    needs_icmp(4)
    with open_icmp("localhost", identifier=1, family=4) as wire:
        assert wire.address.startswith("127.")


def refusing(of_ping: int, of_raw: int) -> Any:
    def make(family: int, kind: int, protocol: int) -> socket.socket:
        number = of_ping if kind == socket.SOCK_DGRAM else of_raw
        raise OSError(number, os.strerror(number))

    return make


def test_neither_socket_is_permitted() -> None:
    with pytest.raises(Unavailable) as caught:
        open_icmp("127.0.0.1", identifier=1, make=refusing(errno.EACCES, errno.EPERM))
    said = str(caught.value)
    assert "a ping socket is refused with EACCES (Permission denied), a raw one with EPERM" in said
    assert "net.ipv4.ping_group_range" in said
    assert "CAP_NET_RAW" in said
    assert said.endswith("bothends ping --udp 127.0.0.1 PORT")
    assert (caught.value.exit_status, caught.value.errno) == (69, errno.EPERM)
    assert isinstance(caught.value.__cause__, ExceptionGroup)


def test_no_ipv6_here() -> None:
    with pytest.raises(Unavailable, match="no IPv6"):
        open_icmp("::1", identifier=1, make=refusing(errno.EAFNOSUPPORT, errno.EAFNOSUPPORT))


def test_no_descriptor_left() -> None:
    with pytest.raises(SystemRefused, match="ulimit -n") as caught:
        open_icmp("127.0.0.1", identifier=1, make=refusing(errno.EMFILE, errno.EMFILE))
    assert caught.value.exit_status == 1


def test_a_host_that_nobody_knows() -> None:
    def unknown(*_: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    with pytest.raises(NameRefused, match="cannot resolve the host nowhere: EAI_NONAME"):
        open_icmp("nowhere", identifier=1, resolver=unknown)


@pytest.mark.parametrize("host", ["", "*", "a b", "127.0.0.1:80", "1.2.3"])
def test_a_word_that_is_no_host(host: str) -> None:
    with pytest.raises((EndpointError, NameRefused)):
        open_icmp(host, identifier=1, resolver=lambda *_: [])
