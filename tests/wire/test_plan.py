"""Which hosts, addresses and routes there are. Values only."""

from __future__ import annotations

import pytest

from bothends.errors import WireError
from bothends.wire import Command, plan
from bothends.wire.plan import EVERYWHERE

HERE = Command("here", ("true",))


def names(*hosts: str) -> list[Command]:
    return [Command(name, ("true",)) for name in hosts]


def test_around_a_switch_everyone_has_one_interface() -> None:
    made = plan(names("a", "b", "c"))
    assert (made.shape, made.cables) == ("switch", None)
    assert [str(address) for address in made.hosts[2].addresses] == ["10.0.0.3", "fd00::3"]
    assert [[each.name for each in host.interfaces] for host in made.hosts] == [["eth0"]] * 3
    assert [host.interfaces[0].routes for host in made.hosts] == [EVERYWHERE] * 3
    assert not any(host.forwards for host in made.hosts)


def test_in_a_line_those_between_forward() -> None:
    made = plan(names("a", "b", "c", "d"), line=True)
    assert [host.forwards for host in made.hosts] == [False, True, True, False]
    assert made.cables == (1, 0, 3, 2, 5, 4)
    assert [host.name for host in made.ports] == ["a", "b", "b", "c", "c", "d"]
    left, right = made.hosts[2].interfaces
    assert (left.name, right.name) == ("eth0", "eth1")
    assert [str(each) for each in left.routes] == ["10.0.0.1/32", "fd00::1/128", "10.0.0.2/32", "fd00::2/128"]
    assert [str(each) for each in right.routes] == ["10.0.0.4/32", "fd00::4/128"]


def test_two_hosts_in_a_line_are_two_hosts() -> None:
    assert plan(names("a", "b"), line=True) == plan(names("a", "b"))


def test_one_host_talks_to_itself() -> None:
    made = plan([HERE])
    assert (made.shape, made.cables) == ("loop", (0,))
    assert "127.0.0.0/8" in map(str, made.hosts[0].interfaces[0].routes)
    assert "fd00::1 localhost\n" in made.names


def test_the_names_file() -> None:
    assert plan(names("server", "client")).names.splitlines() == [
        "127.0.0.1 localhost",
        "::1 localhost",
        "::1 ip6-localhost ip6-loopback",
        "10.0.0.1 server",
        "fd00::1 server",
        "10.0.0.2 client",
        "fd00::2 client",
    ]


def test_the_last_command_has_the_keyboard() -> None:
    assert plan([*names("a", "b"), Command("c")]).main == 1


@pytest.mark.parametrize(
    "commands",
    [
        [],
        names("a", "a"),
        names("a b", "c"),
        names("localhost", "c"),
        names("-a", "c"),
        names(*"abcdefghi"),
        [Command("a"), Command("b")],
    ],
)
def test_what_cannot_be(commands: list[Command]) -> None:
    with pytest.raises(WireError):
        plan(commands)
