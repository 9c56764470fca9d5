"""What names mean: by lookups that are passed in, and by this machine's own for loopback."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.client.resolve import (
    Names,
    Order,
    ServiceMeaning,
    SystemLookups,
    byte_order,
    kind_of,
    resolve_words,
    socket_address,
)
from bothends.errors import EndpointError, UnknownName
from bothends.sockets import NameRefused

ORDERS: st.SearchStrategy[Order] = st.sampled_from(["little", "big"])


class Book:
    """A resolver of one host and a services database of a few lines."""

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
        self.asked: list[tuple[str, int]] = []

    def addresses(self, host: str, family: int) -> tuple[str, list[str]]:
        self.asked.append((host, family))
        if host not in self.hosts:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        canonical, found = self.hosts[host]
        wanted = {socket.AF_INET: ".", socket.AF_INET6: ":"}.get(socket.AddressFamily(family), "")
        return canonical, [each for each in found if wanted in each]

    def names(self, host: str) -> Names | None:
        return Names("server7.example", ("web.example", "www.example")) if host == "web.example" else None

    def reverse(self, address: str) -> Names | None:
        return Names("server7.example", ()) if address == "192.0.2.7" else None

    def port_named(self, service: str, protocol: str) -> int | None:
        return self.ports.get((service, protocol))

    def service_at(self, port: int, protocol: str) -> str | None:
        return self.services.get((port, protocol))


# Bytes


def test_port_12000() -> None:
    its = byte_order(12000, 2, "little")
    assert (its.network, its.machine, its.swapped) == (b"\x2e\xe0", b"\xe0\x2e", 57390)
    assert byte_order(12000, 2, "big").machine == b"\x2e\xe0"


@given(st.integers(0, 65535))
def test_a_port_as_the_system_turns_it(port: int) -> None:
    its = byte_order(port, 2)
    assert its.network == struct.pack("!H", port) == struct.pack("=H", socket.htons(port))
    assert its.machine == struct.pack("=H", port)
    assert its.swapped == int.from_bytes(struct.pack("<H", port), "big")


@given(st.integers(0, 2**32 - 1), ORDERS)
def test_both_orders_hold_the_number(value: int, order: Order) -> None:
    its = byte_order(value, 4, order)
    assert int.from_bytes(its.network, "big") == int.from_bytes(its.machine, order) == value
    assert byte_order(its.swapped, 4, order).swapped == value


def test_a_number_that_does_not_fit() -> None:
    with pytest.raises(OverflowError):
        byte_order(65536, 2)


def test_the_socket_address_of_ipv4() -> None:
    fields = socket_address("127.0.0.1", 12000, "little")
    assert [name for name, _ in fields] == ["family", "port", "address", "zero"]
    assert b"".join(data for _, data in fields).hex(" ") == "02 00 2e e0 7f 00 00 01 00 00 00 00 00 00 00 00"
    assert socket_address("127.0.0.1", 12000, "big")[0][1] == b"\x00\x02"


def test_the_socket_address_of_ipv6() -> None:
    fields = dict(socket_address("fe80::1%1", 80, "little"))
    assert fields["family"] == b"\x0a\x00"
    assert fields["address"] == socket.inet_pton(socket.AF_INET6, "fe80::1")
    assert fields["scope id"] == b"\x01\x00\x00\x00"
    assert sum(map(len, fields.values())) == 28
    assert dict(socket_address("fe80::1%nosuch0", 80))["scope id"] == bytes(4)


# Words


def test_a_host_by_another_name() -> None:
    meaning = resolve_words(["web.example"], Book())
    assert (meaning.official, meaning.aliases) == ("server7.example", ("web.example", "www.example"))
    assert [(each.address, each.family, each.names) for each in meaning.addresses] == [
        ("192.0.2.7", 4, Names("server7.example", ())),
        ("2001:db8::7", 6, None),
    ]
    assert meaning.addresses[0].packed == bytes([192, 0, 2, 7])
    assert meaning.service is None


@pytest.mark.parametrize(
    "words",
    [
        ["web.example", "80"],
        ["web.example", "http"],
        ["web.example:80"],
        ["web.example:www"],
        ["tcp://web.example:80"],
    ],
)
def test_a_host_and_a_port_in_every_spelling(words: list[str]) -> None:
    meaning = resolve_words(words, Book())
    assert (meaning.host, len(meaning.addresses)) == ("web.example", 2)
    assert meaning.service is not None
    assert (meaning.service.port, meaning.service.names) == (80, (("tcp", "http"),))


@pytest.mark.parametrize(
    ("words", "service"),
    [
        (["80"], ServiceMeaning("80", 80, (("tcp", "http"),))),
        ([":80"], ServiceMeaning("80", 80, (("tcp", "http"),))),
        ([":www"], ServiceMeaning("www", 80, (("tcp", "http"),))),
        (["domain"], ServiceMeaning("domain", 53, (("tcp", "domain"), ("udp", "domain")))),
        (["syslog"], ServiceMeaning("syslog", 514, (("tcp", "shell"), ("udp", "syslog")))),
        (["12000"], ServiceMeaning("12000", 12000, ())),
        (["udp://:53"], ServiceMeaning("53", 53, (("tcp", "domain"), ("udp", "domain")))),
    ],
)
def test_a_service_alone(words: list[str], service: ServiceMeaning) -> None:
    meaning = resolve_words(words, Book())
    assert (meaning.host, meaning.addresses, meaning.service) == ("", (), service)


def test_a_host_that_is_called_like_a_service() -> None:
    meaning = resolve_words(["domain"], Book({"domain": ("domain", ["192.0.2.1"])}))
    assert (meaning.host, len(meaning.addresses)) == ("domain", 1)
    assert meaning.service is not None
    assert meaning.service.port == 53


@pytest.mark.parametrize("words", [["::1"], ["[::1]"], ["[::1]:80"], ["::1", "80"], ["[::1]", "80"]])
def test_ipv6_in_every_spelling(words: list[str]) -> None:
    meaning = resolve_words(words, Book({"::1": ("::1", ["::1"])}))
    assert [each.address for each in meaning.addresses] == ["::1"]
    assert (meaning.service is not None) == ("80" in "".join(words))


@pytest.mark.parametrize(
    ("words", "family"), [(["udp://web.example:53?family=6"], None), (["web.example"], 6)]
)
def test_one_family_only(words: list[str], family: int | None) -> None:
    book = Book()
    meaning = resolve_words(words, book, family=family)
    assert [each.address for each in meaning.addresses] == ["2001:db8::7"]
    assert book.asked == [("web.example", socket.AF_INET6)]


@pytest.mark.parametrize(
    ("words", "said"),
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
        (["[::1"], "bracket"),
        (["a b"], "is not a host name"),
        (["*"], "not a host"),
        ([":::"], "is not an IPv6 address"),
    ],
)
def test_words_that_cannot_be_read(words: list[str], said: str) -> None:
    with pytest.raises(EndpointError, match=said):
        resolve_words(words, Book())


@given(st.lists(st.text(max_size=12), min_size=1, max_size=2))
def test_any_words_give_a_meaning_or_an_error_of_ours(words: list[str]) -> None:
    try:
        meaning = resolve_words(words, Book(), reverse_within=0)
    except (EndpointError, NameRefused, UnknownName):
        return
    assert meaning.service is not None or meaning.addresses


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(
        NameRefused, match=r"cannot resolve nowhere: EAI_NONAME \(no such name\); is the name"
    ) as caught:
        resolve_words(["nowhere"], Book())
    assert caught.value.exit_status == 1
    assert isinstance(caught.value.__cause__, socket.gaierror)


def test_a_resolver_that_fails_for_now() -> None:
    class Down(Book):
        def addresses(self, host: str, family: int) -> tuple[str, list[str]]:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")

    with pytest.raises(NameRefused, match=r"EAI_AGAIN \(the resolver failed for now\); the name server"):
        resolve_words(["web.example"], Down())


def test_a_name_without_an_address_of_the_family() -> None:
    with pytest.raises(NameRefused, match="EAI_NODATA"):
        resolve_words(["192.0.2.7"], Book(), family=6)


def test_names_of_addresses_are_not_waited_for() -> None:
    release = threading.Event()

    class Slow(Book):
        def reverse(self, address: str) -> Names | None:
            release.wait(20)
            return Names("too-late", ())

    try:
        meaning = resolve_words(["web.example"], Slow(), reverse_within=0.01)
    finally:
        release.set()
    assert [each.names for each in meaning.addresses] == [None, None]


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
def test_kinds_of_networks(address: str, kind: str) -> None:
    assert kind_of(address) == kind


# This machine


def test_this_machine_knows_localhost() -> None:
    meaning = resolve_words(["localhost"], SystemLookups())
    assert {each.kind for each in meaning.addresses} == {"loopback"}
    assert meaning.official


def test_what_this_machine_does_not_know() -> None:
    lookups = SystemLookups()
    assert lookups.port_named("no-such-service", "tcp") is None
    assert lookups.port_named("a\0b", "tcp") is None
    assert lookups.service_at(1, "no-such-protocol") is None
