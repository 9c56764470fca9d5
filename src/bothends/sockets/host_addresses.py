"""The addresses of this machine, and the well-known names of ports."""

from __future__ import annotations

import array
import contextlib
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from bothends.endpoints import Endpoint

_SIOCGIFCONF: Final = 0x8912  # linux/sockios.h; netdevice(7)
# struct ifreq: the interface name, then a union as large as struct ifmap.
_IFREQ_SIZE: Final = 40 if struct.calcsize("P") == 8 else 32
_NAME_SIZE: Final = 16
_MAX_ADDRESSES: Final = 1024  # a buffer of 40 KiB, and more addresses than a banner can show

# Flags of /proc/net/if_inet6 (linux/if_addr.h): the address is not usable, or not yet.
_DAD_FAILED, _TENTATIVE = 0x08, 0x40


def local_addresses() -> list[str]:
    """Return the addresses of this machine: IPv4, IPv6, link-local ones with their zone, loopback last.

    Without /proc there are no IPv6 addresses. Linux only.
    """
    found = [*_ipv4(), *_ipv6()]
    return [text for _, text in sorted(found, key=lambda each: each[0])]


def is_local_host(host: str) -> bool:
    """Whether a host is localhost or a loopback address. No other name is looked up: False."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def port_note(endpoint: Endpoint) -> str | None:
    """Return a one-line note about a well-known port, or None for any other port.

    Ports below 1024 are the system ports; the services database (services(5)) lists more assigned ports
    (RFC 6335 section 6).
    """
    port = endpoint.port
    if not port or endpoint.scheme == "vsock":
        return None
    name = ""
    with contextlib.suppress(OSError):
        name = socket.getservbyport(port, "udp" if endpoint.is_datagram else "tcp")
    if not name and port >= 1024:
        return None
    known = f"known as {name}" if name else "a system port (below 1024)"
    return f"port {port} is {known}: a custom protocol should not use a well-known port"


def _ipv4() -> Iterable[tuple[int, str]]:
    buffer = array.array("B", bytes(_IFREQ_SIZE * _MAX_ADDRESSES))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("iP", len(buffer), buffer.buffer_info()[0])
        answer = fcntl.ioctl(sock.fileno(), _SIOCGIFCONF, request)
    filled = struct.unpack("iP", answer)[0]
    for start in range(0, filled, _IFREQ_SIZE):
        # struct sockaddr_in after the name: family, port, address.
        address = ipaddress.IPv4Address(buffer[start + _NAME_SIZE + 4 : start + _NAME_SIZE + 8].tobytes())
        yield _sort_rank(address), str(address)


def _ipv6() -> Iterable[tuple[int, str]]:
    try:
        lines = Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for line in lines:
        digits, _, _, _, flags, name = line.split(maxsplit=5)
        if int(flags, 16) & (_DAD_FAILED | _TENTATIVE):
            continue
        address = ipaddress.IPv6Address(int(digits, 16))
        yield _sort_rank(address), f"{address}%{name}" if address.is_link_local else str(address)


def _sort_rank(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
    if address.is_loopback:
        return 4
    if address.is_link_local:
        return 3
    return 1 if address.version == 4 else 2
