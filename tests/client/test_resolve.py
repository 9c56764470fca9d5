"""Explaining names, with fake lookups, and with the resolver of this machine for localhost."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.client.resolve import (
    Endianness,
    HostNames,
    ResolvedService,
    SystemNameService,
    byte_order,
    network_kind,
    resolve_args,
    socket_address,
)
from bothends.errors import EndpointError, UnknownName
from bothends.sockets import ResolveError

ORDERS: st.SearchStrategy[Endianness] = st.sampled_from(["little", "big"])


class FakeNameService:
    """A resolver with one host and a services database with a few entries."""

    ports: Mapping[tuple[str, str], int] = {
        ("http", "tcp"): 80,
        ("www", "tcp"): 80,
        ("domain", "tcp"): 53,
        ("domain", "udp"): 53,
        ("syslog", "udp"): 514,
    }
    services: Mapping[tuple[int, str], str] = {
        (80, "tcp"): "http",
        (53, "tcp"): "domain",
        (53, "udp"): "domain",
        (514, "tcp"): "shell",
        (514, "udp"): "syslog",
    }

    def __init__(self, hosts: Mapping[str, tuple[str, list[str]]] | None = None) -> None:
        self.hosts = hosts or {
            "web.example": ("server7.example", ["192.0.2.7", "2001:db8::7"]),
            "192.0.2.7": ("192.0.2.7", ["192.0.2.7"]),
        }
        self.queries: list[tuple[str, int]] = []

    def addresses(self, host: str, family: int) -> tuple[str, list[str]]:
        self.queries.append((host, family))
        if host not in self.hosts:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        canonical, found = self.hosts[host]
        separator = {socket.AF_INET: ".", socket.AF_INET6: ":"}.get(socket.AddressFamily(family), "")
        return canonical, [each for each in found if separator in each]

    def names(self, host: str) -> HostNames | None:
        return HostNames("server7.example", ("web.example", "www.example")) if host == "web.example" else None

    def reverse(self, address: str) -> HostNames | None:
        return HostNames("server7.example", ()) if address == "192.0.2.7" else None

    def service_port(self, service: str, protocol: str) -> int | None:
        return self.ports.get((service, protocol))

    def service_name(self, port: int, protocol: str) -> str | None:
        return self.services.get((port, protocol))


# Bytes


def test_byte_order_of_port_12000() -> None:
    number = byte_order(12000, 2, "little")
    assert (number.network, number.host, number.swapped) == (b"\x2e\xe0", b"\xe0\x2e", 57390)
    assert byte_order(12000, 2, "big").host == b"\x2e\xe0"


@given(st.integers(0, 65535))
def test_byte_order_matches_htons(port: int) -> None:
    number = byte_order(port, 2)
    assert number.network == struct.pack("!H", port) == struct.pack("=H", socket.htons(port))
    assert number.host == struct.pack("=H", port)
    assert number.swapped == int.from_bytes(struct.pack("<H", port), "big")


@given(st.integers(0, 2**32 - 1), ORDERS)
def test_byte_order_round_trip(value: int, order: Endianness) -> None:
    number = byte_order(value, 4, order)
    assert int.from_bytes(number.network, "big") == int.from_bytes(number.host, order) == value
    assert byte_order(number.swapped, 4, order).swapped == value


def test_byte_order_overflow_raises() -> None:
    with pytest.raises(OverflowError):
        byte_order(65536, 2)


def test_socket_address_ipv4_layout() -> None:
    fields = socket_address("127.0.0.1", 12000, "little")
    assert [name for name, _ in fields] == ["family", "port", "address", "zero"]
    assert b"".join(data for _, data in fields).hex(" ") == "02 00 2e e0 7f 00 00 01 00 00 00 00 00 00 00 00"
    assert socket_address("127.0.0.1", 12000, "big")[0][1] == b"\x00\x02"


def test_socket_address_ipv6_layout() -> None:
    fields = dict(socket_address("fe80::1%1", 80, "little"))
    assert fields["family"] == b"\x0a\x00"
    assert fields["address"] == socket.inet_pton(socket.AF_INET6, "fe80::1")
    assert fields["scope id"] == b"\x01\x00\x00\x00"
    assert sum(map(len, fields.values())) == 28
    assert dict(socket_address("fe80::1%nosuch0", 80))["scope id"] == bytes(4)


# Arguments


def test_resolve_host_alias() -> None:
    resolution = resolve_args(["web.example"], FakeNameService())
    assert (resolution.official, resolution.aliases) == ("server7.example", ("web.example", "www.example"))
    assert [(each.address, each.family, each.names) for each in resolution.addresses] == [
        ("192.0.2.7", 4, HostNames("server7.example", ())),
        ("2001:db8::7", 6, None),
    ]
    assert resolution.addresses[0].packed == bytes([192, 0, 2, 7])
    assert resolution.service is None


@pytest.mark.parametrize(
    "args",
    [
        ["web.example", "80"],
        ["web.example", "http"],
        ["web.example:80"],
        ["web.example:www"],
        ["tcp://web.example:80"],
    ],
)
def test_resolve_host_and_port_spellings(args: list[str]) -> None:
    resolution = resolve_args(args, FakeNameService())
    assert (resolution.host, len(resolution.addresses)) == ("web.example", 2)
    assert resolution.service is not None
    assert (resolution.service.port, resolution.service.names) == (80, (("tcp", "http"),))


@pytest.mark.parametrize(
    ("args", "service"),
    [
        (["80"], ResolvedService("80", 80, (("tcp", "http"),))),
        ([":80"], ResolvedService("80", 80, (("tcp", "http"),))),
        ([":www"], ResolvedService("www", 80, (("tcp", "http"),))),
        (["domain"], ResolvedService("domain", 53, (("tcp", "domain"), ("udp", "domain")))),
        (["syslog"], ResolvedService("syslog", 514, (("tcp", "shell"), ("udp", "syslog")))),
        (["12000"], ResolvedService("12000", 12000, ())),
        (["udp://:53"], ResolvedService("53", 53, (("tcp", "domain"), ("udp", "domain")))),
    ],
)
def test_resolve_service_or_port_only(args: list[str], service: ResolvedService) -> None:
    resolution = resolve_args(args, FakeNameService())
    assert (resolution.host, resolution.addresses, resolution.service) == ("", (), service)


def test_resolve_name_of_host_and_service() -> None:
    resolution = resolve_args(["domain"], FakeNameService({"domain": ("domain", ["192.0.2.1"])}))
    assert (resolution.host, len(resolution.addresses)) == ("domain", 1)
    assert resolution.service is not None
    assert resolution.service.port == 53


@pytest.mark.parametrize("args", [["::1"], ["[::1]"], ["[::1]:80"], ["::1", "80"], ["[::1]", "80"]])
def test_resolve_ipv6_spellings(args: list[str]) -> None:
    resolution = resolve_args(args, FakeNameService({"::1": ("::1", ["::1"])}))
    assert [each.address for each in resolution.addresses] == ["::1"]
    assert (resolution.service is not None) == ("80" in "".join(args))


@pytest.mark.parametrize(
    ("args", "family"), [(["udp://web.example:53?family=6"], None), (["web.example"], 6)]
)
def test_resolve_family_restricts_addresses(args: list[str], family: int | None) -> None:
    name_service = FakeNameService()
    resolution = resolve_args(args, name_service, family=family)
    assert [each.address for each in resolution.addresses] == ["2001:db8::7"]
    assert name_service.queries == [("web.example", socket.AF_INET6)]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "one name"),
        (["a", "b", "c"], "one name"),
        (["web.example", "nosuch"], "there is no service 'nosuch'"),
        (["web.example:65536"], "there is no service '65536'"),
        (["65536"], "there is no service"),
        (["80", "80"], "'80' is not a host name"),
        (["unix:///run/a"], "has no name to resolve"),
        (["vsock://1:2"], "has no name to resolve"),
        (["tcp://:0"], "neither a host nor a port"),
        (["[::1"], r"'\[' without '\]'"),
        (["a b"], "is not a host name"),
        (["*"], "not a host"),
        ([":::"], "is not an IPv6 address"),
    ],
)
def test_resolve_invalid_args_raise(args: list[str], message: str) -> None:
    with pytest.raises(EndpointError, match=message):
        resolve_args(args, FakeNameService())


@given(st.lists(st.text(max_size=12), min_size=1, max_size=2))
def test_resolve_arbitrary_args_succeeds_or_raises_documented_error(args: list[str]) -> None:
    try:
        resolution = resolve_args(args, FakeNameService(), reverse_timeout=0)
    except (EndpointError, ResolveError, UnknownName):
        return
    assert resolution.service is not None or resolution.addresses


def test_resolve_unknown_host_raises() -> None:
    with pytest.raises(
        ResolveError, match=r"cannot resolve nowhere: EAI_NONAME \(no such name\); check the spelling"
    ) as caught:
        resolve_args(["nowhere"], FakeNameService())
    assert caught.value.exit_status == 1
    assert isinstance(caught.value.__cause__, socket.gaierror)


def test_resolve_temporary_failure_raises() -> None:
    class FailingNameService(FakeNameService):
        def addresses(self, host: str, family: int) -> tuple[str, list[str]]:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")

    with pytest.raises(ResolveError, match=r"EAI_AGAIN \(the resolver failed temporarily\); the name server"):
        resolve_args(["web.example"], FailingNameService())


def test_resolve_no_address_of_family_raises() -> None:
    with pytest.raises(ResolveError, match="EAI_NODATA"):
        resolve_args(["192.0.2.7"], FakeNameService(), family=6)


def test_resolve_slow_reverse_lookup_is_abandoned() -> None:
    release = threading.Event()

    class SlowNameService(FakeNameService):
        def reverse(self, address: str) -> HostNames | None:
            release.wait(20)
            return HostNames("too-late", ())

    try:
        resolution = resolve_args(["web.example"], SlowNameService(), reverse_timeout=0.01)
    finally:
        release.set()
    assert [each.names for each in resolution.addresses] == [None, None]


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "every interface"),
        ("10.1.2.3", "private"),
        ("169.254.1.1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("::ffff:127.0.0.1", "IPv4 in IPv6"),
        ("8.8.8.8", "global"),
        ("fd00::1", "private"),
    ],
)
def test_network_kind(address: str, kind: str) -> None:
    assert network_kind(address) == kind


# This machine


def test_system_name_service_resolves_localhost() -> None:
    resolution = resolve_args(["localhost"], SystemNameService())
    assert {each.kind for each in resolution.addresses} == {"loopback"}
    assert resolution.official


def test_system_name_service_unknown_service_returns_none() -> None:
    name_service = SystemNameService()
    assert name_service.service_port("no-such-service", "tcp") is None
    assert name_service.service_port("a\0b", "tcp") is None
    assert name_service.service_name(1, "no-such-protocol") is None
