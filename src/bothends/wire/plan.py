"""The hosts of a wire, with their addresses, interfaces and routes. Values, no I/O.

Host number k (from 1) has the addresses 10.0.0.k and fd00::k on each of its interfaces. Every route names an
interface and no gateway. So no network is shared, no host resolves addresses (ARP), and the same topology
works with TUN devices, which have no hardware addresses, and with veth pairs.

    switch (two or more hosts)   every host has eth0, which leads to all others
    line                         eth0 leads to the previous host, eth1 to the next; hosts between forward
    loop (one host)              eth0 leads back to the host: its packets to 127.0.0.1 cross the wire
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from bothends.errors import TopologyError
from bothends.wire.netlink import IpAddress, IpNetwork

Shape: TypeAlias = Literal["switch", "line", "loop"]

MAX_HOSTS: Final = 8
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)  # RFC 1123 section 2.1

ROUTER_ADDRESSES: Final = (ipaddress.IPv4Address("10.0.0.254"), ipaddress.IPv6Address("fd00::fe"))
"""Source addresses of the ICMP errors that the wire itself sends."""

LOOPBACK: Final = ipaddress.IPv4Network("127.0.0.0/8")
DEFAULT_ROUTES: Final = (ipaddress.IPv4Network("0.0.0.0/0"), ipaddress.IPv6Network("::/0"))


@dataclass(frozen=True, slots=True)
class HostCommand:
    """The command of a host; none for a host that only forwards.

    With `no_shell` it is executed as it is. Otherwise `argv` is one command line, which a shell runs.
    """

    host: str
    argv: tuple[str, ...] = ()
    no_shell: bool = False


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface of a host. `port` is its number among the interfaces of all hosts, from 0."""

    name: str
    port: int
    routes: tuple[IpNetwork, ...]


@dataclass(frozen=True, slots=True)
class Host:
    """One host. `addresses` has an IPv4 address, then an IPv6 address."""

    name: str
    command: HostCommand
    addresses: tuple[IpAddress, ...]
    interfaces: tuple[Interface, ...]
    forwards: bool = False


@dataclass(frozen=True, slots=True)
class Topology:
    """All hosts. `peer_ports` has the port at the other end of each port's cable; None with a switch."""

    hosts: tuple[Host, ...]
    shape: Shape
    peer_ports: tuple[int, ...] | None
    mtu: int = 1500

    @property
    def ports(self) -> list[Host]:
        """The host of each port, by port number."""
        return [host for host in self.hosts for _ in host.interfaces]

    @property
    def main_host(self) -> int:
        """The index of the last host with a command: it reads stdin, and when it exits, the wire ends."""
        return max(index for index, host in enumerate(self.hosts) if host.command.argv)

    @property
    def hosts_file(self) -> str:
        """The content of /etc/hosts inside: hosts(5)."""
        own = "fd00::1" if self.shape == "loop" else "::1"
        lines = ["127.0.0.1 localhost", f"{own} localhost", "::1 ip6-localhost ip6-loopback"]
        lines += [f"{address} {host.name}" for host in self.hosts for address in host.addresses]
        return "\n".join(lines) + "\n"


def build_topology(commands: Sequence[HostCommand], *, line: bool = False) -> Topology:
    """Build the topology of hosts with these commands. `line` puts them in a line. Raises TopologyError."""
    names = [each.host for each in commands]
    for name in names:
        if not _NAME.fullmatch(name) or name == "localhost":
            raise TopologyError(f"host {name!r}", "invalid host name", "use letters, digits and dashes")
        if names.count(name) > 1:
            raise TopologyError(f"host {name!r}", "two hosts have this name")
    if not 1 <= len(commands) <= MAX_HOSTS:
        raise TopologyError(f"{len(commands)} hosts", f"a wire has 1 to {MAX_HOSTS} hosts")
    if not any(each.argv for each in commands):
        raise TopologyError("hosts", "no host has a command", 'give one with --host client="CMD"')
    if len(commands) == 1:
        return _loop(commands[0])
    return _line(commands) if line and len(commands) > 2 else _switch(commands)


def addresses_of(number: int) -> tuple[IpAddress, ...]:
    """Return the addresses of a host by its number, from 1."""
    return (ipaddress.IPv4Address(f"10.0.0.{number}"), ipaddress.IPv6Address(f"fd00::{number}"))


def _loop(command: HostCommand) -> Topology:
    own = addresses_of(1)
    routes = (LOOPBACK, *map(_host_route, own), *DEFAULT_ROUTES)
    host = Host(command.host, command, own, (Interface("eth0", 0, routes),))
    return Topology((host,), "loop", (0,))


def _switch(commands: Sequence[HostCommand]) -> Topology:
    hosts = tuple(
        Host(command.host, command, addresses_of(index + 1), (Interface("eth0", index, DEFAULT_ROUTES),))
        for index, command in enumerate(commands)
    )
    return Topology(hosts, "switch", None)


def _line(commands: Sequence[HostCommand]) -> Topology:
    hosts: list[Host] = []
    peer_ports: list[int] = []
    last = len(commands) - 1
    for index, command in enumerate(commands):
        before = [_host_route(each) for number in range(1, index + 1) for each in addresses_of(number)]
        after = [_host_route(each) for number in range(index + 2, last + 2) for each in addresses_of(number)]
        interfaces = []
        if index > 0:
            routes = tuple(before) if index < last else DEFAULT_ROUTES
            interfaces.append(Interface("eth0", len(peer_ports), routes))
            peer_ports.append(len(peer_ports) - 1)
        if index < last:
            routes = tuple(after) if index > 0 else DEFAULT_ROUTES
            interfaces.append(Interface(f"eth{len(interfaces)}", len(peer_ports), routes))
            peer_ports.append(len(peer_ports) + 1)
        hosts.append(
            Host(command.host, command, addresses_of(index + 1), tuple(interfaces), 0 < index < last)
        )
    return Topology(tuple(hosts), "line", tuple(peer_ports))


def _host_route(address: IpAddress) -> IpNetwork:
    return ipaddress.ip_network(address)
