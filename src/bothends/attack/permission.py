"""Which addresses may be attacked: loopback, UNIX sockets and the hosts of a wire; others only if repeated.

An attack is for a server that is one's own. The address is resolved once, and the attack uses that address,
so that a name which changes its address meanwhile leads nowhere else. Broadcast and multicast addresses are
refused always: their datagrams would reach others, too.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from pathlib import Path
from typing import Final

from bothends.endpoints import Endpoint
from bothends.errors import EndpointError, UsageError
from bothends.sockets.host_addresses import local_addresses

_SCHEMES: Final = ("tcp", "tls", "udp", "unix", "unix+dgram")
# The addresses of a wire's hosts (wire/plan.py).
_WIRE_NETWORKS: Final = (ipaddress.ip_network("10.0.0.0/28"), ipaddress.ip_network("fd00::/124"))
_NO_GATEWAY: Final = "00000000"
_FULL_MASKS: Final = ("FFFFFFFF", "00000000")

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def permitted_endpoint(endpoint: Endpoint, allowed: str = "") -> Endpoint:
    """Return the endpoint with an address as its host, if it may be attacked.

    Args:
        allowed: the value of `--i-may`.

    Raises:
        EndpointError: another scheme, no address for the host, or an address that is never attacked.
        UsageError: the address is not this machine's loopback or a wire's, and not repeated exactly.
    """
    if endpoint.scheme not in _SCHEMES:
        raise EndpointError(str(endpoint), "it can't be attacked", f"use {', '.join(_SCHEMES)}")
    if endpoint.is_unix:
        return endpoint
    address = _resolve(endpoint)
    _check_never(endpoint, address)
    if address.is_loopback or is_wire_host(address):
        return endpoint.with_host(str(address))
    _check_broadcast(endpoint, address)
    if not allowed:
        raise UsageError(
            f"{address} is not on loopback: attack only what is yours; "
            f"if it is, repeat the address: --i-may {address}"
        )
    try:
        repeated: IpAddress | None = ipaddress.ip_address(allowed)
    except ValueError:
        repeated = None
    if repeated != address:
        raise UsageError(f"--i-may {allowed} is not the address {address} that would be attacked")
    return endpoint.with_host(str(address))


def is_wire_host(address: IpAddress, routes: Path = Path("/proc/self/net/route")) -> bool:
    """Whether an address is that of a host of a wire that this process is in, too.

    The hosts of a wire have routes without gateways and without networks (wire/plan.py), which no other
    network has, and this host is one of them.
    """
    if not any(address in network for network in _WIRE_NETWORKS):
        return False
    own = [ipaddress.ip_address(text.partition("%")[0]) for text in local_addresses()]
    if not any(each in network for each in own for network in _WIRE_NETWORKS):
        return False
    try:
        lines = [line.split() for line in routes.read_text(encoding="ascii").splitlines()[1:]]
    except OSError:
        return False
    return bool(lines) and all(line[2] == _NO_GATEWAY and line[7] in _FULL_MASKS for line in lines)


def _resolve(endpoint: Endpoint) -> IpAddress:
    try:
        found = socket.getaddrinfo(endpoint.host or "127.0.0.1", endpoint.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise EndpointError(str(endpoint), f"cannot resolve the host: {error.strerror}") from error
    address = ipaddress.ip_address(str(found[0][4][0]))
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:  # an IPv4 address in an IPv6 socket (RFC 4291, 2.5.5.2)
        address = mapped
    if address.is_unspecified:  # a connection to it is one to loopback (ip(7))
        return ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return address


def _check_never(endpoint: Endpoint, address: IpAddress) -> None:
    if address.is_multicast:
        raise EndpointError(str(endpoint), f"{address} is a multicast address, which is never attacked")
    if address == ipaddress.ip_address("255.255.255.255"):
        raise EndpointError(str(endpoint), f"{address} is a broadcast address, which is never attacked")


def _check_broadcast(endpoint: Endpoint, address: IpAddress) -> None:
    """Refuse the broadcast addresses of this machine's networks, by asking the kernel (EACCES, ip(7))."""
    if address.version == 6:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        if sock.connect_ex((str(address), endpoint.port or 1)) == errno.EACCES:
            raise EndpointError(str(endpoint), f"{address} is a broadcast address, which is never attacked")
