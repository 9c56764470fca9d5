"""Topologies: hosts, addresses and routes. Values only."""

from __future__ import annotations

import pytest

from bothends.errors import TopologyError
from bothends.wire import HostCommand, build_topology
from bothends.wire.plan import DEFAULT_ROUTES

HERE = HostCommand("here", ("true",))


def names(*hosts: str) -> list[HostCommand]:
    return [HostCommand(name, ("true",)) for name in hosts]


def test_switch_topology_has_one_interface_per_host() -> None:
    topology = build_topology(names("a", "b", "c"))
    assert (topology.shape, topology.peer_ports) == ("switch", None)
    assert [str(address) for address in topology.hosts[2].addresses] == ["10.0.0.3", "fd00::3"]
    assert [[each.name for each in host.interfaces] for host in topology.hosts] == [["eth0"]] * 3
    assert [host.interfaces[0].routes for host in topology.hosts] == [DEFAULT_ROUTES] * 3
    assert not any(host.forwards for host in topology.hosts)


def test_line_topology_middle_hosts_forward() -> None:
    topology = build_topology(names("a", "b", "c", "d"), line=True)
    assert [host.forwards for host in topology.hosts] == [False, True, True, False]
    assert topology.peer_ports == (1, 0, 3, 2, 5, 4)
    assert [host.name for host in topology.ports] == ["a", "b", "b", "c", "c", "d"]
    left, right = topology.hosts[2].interfaces
    assert (left.name, right.name) == ("eth0", "eth1")
    assert [str(each) for each in left.routes] == ["10.0.0.1/32", "fd00::1/128", "10.0.0.2/32", "fd00::2/128"]
    assert [str(each) for each in right.routes] == ["10.0.0.4/32", "fd00::4/128"]


def test_line_of_two_hosts_is_switch() -> None:
    assert build_topology(names("a", "b"), line=True) == build_topology(names("a", "b"))


def test_single_host_is_loop_topology() -> None:
    topology = build_topology([HERE])
    assert (topology.shape, topology.peer_ports) == ("loop", (0,))
    assert "127.0.0.0/8" in map(str, topology.hosts[0].interfaces[0].routes)
    assert "fd00::1 localhost\n" in topology.hosts_file


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
