"""From a host to addresses: the order, and what no resolver can answer."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.endpoints import Endpoint
from bothends.sockets import NameRefused, open_connection
from bothends.sockets.resolve import Target, here, interleave, resolve
from tests.sockets.tools import Names


def four(number: int) -> Target:
    return Target(socket.AF_INET, (f"127.0.0.{number}", 1))


def six(number: int) -> Target:
    return Target(socket.AF_INET6, (f"::{number}", 1, 0, 0))


@pytest.mark.parametrize(
    ("given_order", "tried"),
    [
        ([], []),
        ([four(1)], [four(1)]),
        ([six(1), six(2), four(1), four(2)], [six(1), four(1), six(2), four(2)]),
        ([four(1), six(1), six(2), six(3)], [four(1), six(1), six(2), six(3)]),
        ([four(1), four(2), four(3), six(1)], [four(1), six(1), four(2), four(3)]),
    ],
)
def test_families_take_turns(given_order: list[Target], tried: list[Target]) -> None:
    assert interleave(given_order) == tried


TARGETS = st.lists(st.builds(lambda make, n: make(n), st.sampled_from([four, six]), st.integers(1, 99)))


@given(TARGETS)
def test_the_order_loses_none_and_keeps_each_family_in_order(targets: list[Target]) -> None:
    tried = interleave(targets)
    assert sorted(map(str, tried)) == sorted(map(str, targets))
    assert tried[:1] == targets[:1]
    for family in (socket.AF_INET, socket.AF_INET6):
        assert [t for t in tried if t.family == family] == [t for t in targets if t.family == family]


def test_addresses_come_once_each_and_in_the_order_of_the_resolver() -> None:
    names = Names("127.0.0.2", "::1", "127.0.0.2", "127.0.0.1")
    found = resolve(Endpoint.parse("tcp://somewhere:80"), names)
    assert [target.sockaddr[0] for target in found] == ["127.0.0.2", "::1", "127.0.0.1"]
    assert names.asked == [("somewhere", 80, socket.AF_UNSPEC, socket.SOCK_STREAM)]


def test_the_family_option_goes_to_the_resolver() -> None:
    names = Names("::1", "127.0.0.1")
    found = resolve(Endpoint.parse("udp://somewhere:80?family=4"), names)
    assert [target.sockaddr[0] for target in found] == ["127.0.0.1"]
    assert names.asked == [("somewhere", 80, socket.AF_INET, socket.SOCK_DGRAM)]


@pytest.mark.parametrize(("options", "families"), [("", [10, 2]), ("?family=4", [2]), ("?family=6", [10])])
def test_no_host_is_this_machine(options: str, families: list[int]) -> None:
    assert [target.family for target in here(Endpoint.parse(f"tcp://:80{options}"))] == families


@pytest.mark.parametrize(
    ("number", "name", "hint"),
    [
        (socket.EAI_NONAME, "EAI_NONAME (no such name)", "is the name spelled right?"),
        (socket.EAI_AGAIN, "EAI_AGAIN (the resolver failed for now)", "the name server did not answer"),
        (-99999, "-99999 (the resolver failed)", ""),
    ],
)
def test_a_resolver_that_fails(number: int, name: str, hint: str) -> None:
    def failing(*_: object) -> list[object]:
        raise socket.gaierror(number, "the system's words")

    with pytest.raises(NameRefused) as caught:
        open_connection(Endpoint.parse("tcp://somewhere:80"), resolver=failing)
    assert str(caught.value).startswith(f"cannot resolve the host of tcp://somewhere:80: {name}")
    assert hint in str(caught.value)
    assert caught.value.errno == number
    assert isinstance(caught.value.__cause__, socket.gaierror)
    assert caught.value.exit_status == 1


def test_a_name_without_an_address_of_the_family() -> None:
    with pytest.raises(NameRefused, match=r"EAI_NODATA .*no IPv6 address, as family=6 asks for"):
        resolve(Endpoint.parse("tcp://somewhere:80?family=6"), Names("127.0.0.1"))


def test_a_zone_that_is_no_interface() -> None:
    with pytest.raises(NameRefused, match="is there an interface of that name"):
        resolve(Endpoint.parse("tcp://[fe80::1%25no-such-if]:80"))
