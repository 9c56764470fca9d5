"""Which hosts, addresses and routes there are. Values only."""

from __future__ import annotations

import pytest

from bothends.errors import TopologyError
from bothends.wire import HostCommand, build_topology
from bothends.wire.plan import DEFAULT_ROUTES

HERE = HostCommand("here", ("true",))


def names(*hosts: str) -> list[HostCommand]:
    return [HostCommand(name, ("true",)) for name in hosts]


def test_switch_topology_has_one_interface_per_host() -> None:
    made = build_topology(names("a", "b", "c"))
    assert (made.shape, made.peer_ports) == ("switch", None)
    assert [str(address) for address in made.hosts[2].addresses] == ["10.0.0.3", "fd00::3"]
    assert [[each.name for each in host.interfaces] for host in made.hosts] == [["eth0"]] * 3
    assert [host.interfaces[0].routes for host in made.hosts] == [DEFAULT_ROUTES] * 3
    assert not any(host.forwards for host in made.hosts)


def test_line_topology_middle_hosts_forward() -> None:
    made = build_topology(names("a", "b", "c", "d"), line=True)
    assert [host.forwards for host in made.hosts] == [False, True, True, False]
    assert made.peer_ports == (1, 0, 3, 2, 5, 4)
    assert [host.name for host in made.ports] == ["a", "b", "b", "c", "c", "d"]
    left, right = made.hosts[2].interfaces
    assert (left.name, right.name) == ("eth0", "eth1")
    assert [str(each) for each in left.routes] == ["10.0.0.1/32", "fd00::1/128", "10.0.0.2/32", "fd00::2/128"]
    assert [str(each) for each in right.routes] == ["10.0.0.4/32", "fd00::4/128"]


def test_line_of_two_hosts_is_switch() -> None:
    assert build_topology(names("a", "b"), line=True) == build_topology(names("a", "b"))


def test_single_host_is_loop_topology() -> None:
    made = build_topology([HERE])
    assert (made.shape, made.peer_ports) == ("loop", (0,))
    assert "127.0.0.0/8" in map(str, made.hosts[0].interfaces[0].routes)
    assert "fd00::1 localhost\n" in made.hosts_file


def test_hosts_file() -> None:
    assert build_topology(names("server", "client")).hosts_file.splitlines() == [
        "127.0.0.1 localhost",
        "::1 localhost",
        "::1 ip6-localhost ip6-loopback",
        "10.0.0.1 server",
        "fd00::1 server",
        "10.0.0.2 client",
        "fd00::2 client",
    ]


def test_main_host_is_last_with_command() -> None:
    assert build_topology([*names("a", "b"), HostCommand("c")]).main_host == 1


@pytest.mark.parametrize(
    "commands",
    [
        [],
        names("a", "a"),
        names("a b", "c"),
        names("localhost", "c"),
        names("-a", "c"),
        names(*"abcdefghi"),
        [HostCommand("a"), HostCommand("b")],
    ],
)
def test_invalid_topology_raises_error(commands: list[HostCommand]) -> None:
    with pytest.raises(TopologyError):
        build_topology(commands)
