"""Resolving hosts: the order of addresses, and errors of the resolver."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.endpoints import Endpoint
from bothends.sockets import ResolveError, open_connection
from bothends.sockets.resolve import AddrInfo, interleave, loopback_addresses, resolve
from tests.sockets.tools import FakeResolver


def ipv4_target(number: int) -> AddrInfo:
    return AddrInfo(socket.AF_INET, (f"127.0.0.{number}", 1))


def ipv6_target(number: int) -> AddrInfo:
    return AddrInfo(socket.AF_INET6, (f"::{number}", 1, 0, 0))


@pytest.mark.parametrize(
    ("given_order", "expected"),
    [
        ([], []),
        ([ipv4_target(1)], [ipv4_target(1)]),
        (
            [ipv6_target(1), ipv6_target(2), ipv4_target(1), ipv4_target(2)],
            [ipv6_target(1), ipv4_target(1), ipv6_target(2), ipv4_target(2)],
        ),
        (
            [ipv4_target(1), ipv6_target(1), ipv6_target(2), ipv6_target(3)],
            [ipv4_target(1), ipv6_target(1), ipv6_target(2), ipv6_target(3)],
        ),
        (
            [ipv4_target(1), ipv4_target(2), ipv4_target(3), ipv6_target(1)],
            [ipv4_target(1), ipv6_target(1), ipv4_target(2), ipv4_target(3)],
        ),
    ],
)
def test_interleave_alternates_families(given_order: list[AddrInfo], expected: list[AddrInfo]) -> None:
    assert interleave(given_order) == expected


TARGETS = st.lists(
    st.builds(lambda target, n: target(n), st.sampled_from([ipv4_target, ipv6_target]), st.integers(1, 99))
)


@given(TARGETS)
def test_interleave_is_a_stable_permutation(targets: list[AddrInfo]) -> None:
    ordered = interleave(targets)
    assert sorted(map(str, ordered)) == sorted(map(str, targets))
    assert ordered[:1] == targets[:1]
    for family in (socket.AF_INET, socket.AF_INET6):
        assert [t for t in ordered if t.family == family] == [t for t in targets if t.family == family]


def test_resolve_deduplicates_in_resolver_order() -> None:
    resolver = FakeResolver("127.0.0.2", "::1", "127.0.0.2", "127.0.0.1")
    found = resolve(Endpoint.parse("tcp://somewhere:80"), resolver)
    assert [target.sockaddr[0] for target in found] == ["127.0.0.2", "::1", "127.0.0.1"]
    assert resolver.queries == [("somewhere", 80, socket.AF_UNSPEC, socket.SOCK_STREAM)]


def test_resolve_passes_family_option() -> None:
    resolver = FakeResolver("::1", "127.0.0.1")
    found = resolve(Endpoint.parse("udp://somewhere:80?family=4"), resolver)
    assert [target.sockaddr[0] for target in found] == ["127.0.0.1"]
    assert resolver.queries == [("somewhere", 80, socket.AF_INET, socket.SOCK_DGRAM)]


@pytest.mark.parametrize(("options", "families"), [("", [10, 2]), ("?family=4", [2]), ("?family=6", [10])])
def test_loopback_addresses_by_family(options: str, families: list[int]) -> None:
    assert [target.family for target in loopback_addresses(Endpoint.parse(f"tcp://:80{options}"))] == families


@pytest.mark.parametrize(
    ("number", "name", "hint"),
    [
        (socket.EAI_NONAME, "EAI_NONAME (no such name)", "check the spelling"),
        (socket.EAI_AGAIN, "EAI_AGAIN (the resolver failed temporarily)", "the name server did not answer"),
        (-99999, "-99999 (the resolver failed)", ""),
    ],
)
def test_resolve_error_text_and_hint(number: int, name: str, hint: str) -> None:
    def failing(*_: object) -> list[object]:
        raise socket.gaierror(number, "the system's words")

    with pytest.raises(ResolveError) as caught:
        open_connection(Endpoint.parse("tcp://somewhere:80"), resolver=failing)
    assert str(caught.value).startswith(f"cannot resolve the host of tcp://somewhere:80: {name}")
    assert hint in str(caught.value)
    assert caught.value.errno == number
    assert isinstance(caught.value.__cause__, socket.gaierror)
    assert caught.value.exit_status == 1


def test_resolve_no_address_of_family_raises() -> None:
    with pytest.raises(ResolveError, match=r"EAI_NODATA .*family=6 is given"):
        resolve(Endpoint.parse("tcp://somewhere:80?family=6"), FakeResolver("127.0.0.1"))


def test_resolve_unknown_zone_raises() -> None:
    with pytest.raises(ResolveError, match="check that an interface of that name exists"):
        resolve(Endpoint.parse("tcp://[fe80::1%25no-such-if]:80"))
