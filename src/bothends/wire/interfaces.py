"""Network devices of hosts: TUN devices, or veth pairs and packet sockets. Called inside the namespaces.

1. Each read from a TUN device returns one IP packet that its host has sent, at most as long as the MTU; each
   write delivers one packet to the host.
2. /dev/net/tun may be inaccessible (mode 0600 on some systems). Then a veth pair is used: the host's end
   looks the same from inside, and a packet socket on the wire's end reads and writes frames (packet(7)).
3. The wire's ends are in a network namespace of their own, which has nothing else in it.
4. If each packet must be as on a cable, a host's offloads must be off. Otherwise the host sends segments of
   64 KiB without checksums (ethtool(8)), and `offload.py` has to finish them.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bothends.wire.netlink import MAIN_TABLE, Netlink
from bothends.wire.plan import DEFAULT_ROUTES, LOOPBACK, Host, Shape

TUN: Final = "/dev/net/tun"
# linux/if_tun.h
_TUNSETIFF: Final = 0x400454CA
_TUNSETOFFLOAD: Final = 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6 = 0x01, 0x02, 0x04

_SIOCETHTOOL, _SIOCGIFHWADDR = 0x8946, 0x8927  # linux/sockios.h
# linux/ethtool.h: transmit checksums, scatter-gather, TSO, GSO; and GRO, which would join delivered packets
_OFFLOADS: Final = (0x17, 0x19, 0x1F, 0x24)
_GRO: Final = 0x2C
_ETH_P_ALL: Final = 0x0003
# linux/if_packet.h; the latter since Linux 4.20
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 15, 23
_SO_RCVBUFFORCE: Final = 33
_RECEIVE_BUFFER: Final = 8 * 1024 * 1024  # bytes: several thousand frames

HOST_MTU: Final = 1500
"""MTU of every interface. A smaller MTU applies to the wire only, so hosts must discover it (RFC 1191)."""

_TX_QUEUE_LENGTH: Final = 1000  # packets: the default of Ethernet devices; that of TUN is 500
_LOOP_TABLE: Final = 100


def open_tun(name: str) -> int:
    """Create a TUN device in the current network namespace. Returns its descriptor. Raises OSError.

    The header of `offload.py` precedes each packet.
    """
    descriptor = os.open(TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def set_tun_offload(descriptor: int, *, on: bool) -> None:
    """Let the host of a TUN device leave segmentation and checksums to the wire, or not. Raises OSError.

    Packets that the host has already queued stay as they are.
    """
    fcntl.ioctl(descriptor, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6 if on else 0)


def open_packet_socket(name: str) -> socket.socket:
    """Open a socket for all frames of an interface in the current network namespace. Raises OSError.

    The header of `offload.py` precedes each frame.
    """
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        except OSError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        sock.bind((name, _ETH_P_ALL))
    except OSError:
        sock.close()
        raise
    return sock


def hardware_address(name: str) -> bytes:
    """Return the Ethernet address of an interface, as 6 bytes. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, _SIOCGIFHWADDR, struct.pack("16s24x", name.encode()))
    return answer[18:24]


def set_veth_offload(name: str, *, on: bool) -> None:
    """Let the sender of a veth device leave segmentation and checksums to the receiver, or not.

    With `on=False` every frame is as it would be on a cable. Features that the kernel's veth driver lacks are
    ignored.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for command in (*_OFFLOADS, _GRO):
            value = array.array("B", struct.pack("=II", command, on and command != _GRO))
            request = struct.pack("16sP16x", name.encode(), value.buffer_info()[0])
            with contextlib.suppress(OSError):  # EOPNOTSUPP: this kernel's veth driver lacks it
                fcntl.ioctl(sock, _SIOCETHTOOL, request)


def set_up(host: Host, shape: Shape) -> None:
    """Configure addresses, routes and settings of a host, in its network namespace. Raises OSError.

    Its interfaces must exist. If the kernel lacks IPv6, only IPv4 is configured.
    """
    for each in host.interfaces:
        _disable_autoconfiguration(each.name)
    with Netlink() as netlink:
        netlink.set_link("lo", up=True)
        for each in host.interfaces:
            netlink.set_link(each.name, up=True, mtu=HOST_MTU, queue=_TX_QUEUE_LENGTH, arp=False)
        if shape == "loop":
            _route_local_traffic_out(netlink, host.interfaces[0].name)
    restore(host, shape)
    if host.forwards:
        _write_sysctl("net/ipv4/ip_forward", "1")
        with _ignore_missing_ipv6(6):
            _write_sysctl("net/ipv6/conf/all/forwarding", "1")


def restore(host: Host, shape: Shape) -> None:
    """Add the missing addresses and routes of a host, in its network namespace. Raises OSError.

    The kernel removes the routes and IPv6 addresses of an interface that goes down. Call this when it comes
    up again.
    """
    with Netlink() as netlink:
        for each in host.interfaces:
            for address in host.addresses:
                with _ignore_missing_ipv6(address.version), contextlib.suppress(FileExistsError):
                    netlink.add_address(each.name, address)
            for network in each.routes:
                source = host.addresses[0 if network.version == 4 else 1]
                if network == LOOPBACK:
                    source = ipaddress.IPv4Address("127.0.0.1")
                is_local = shape == "loop" and network not in DEFAULT_ROUTES
                with _ignore_missing_ipv6(network.version), contextlib.suppress(FileExistsError):
                    netlink.add_route(network, each.name, source, _LOOP_TABLE if is_local else MAIN_TABLE)


def _disable_autoconfiguration(name: str) -> None:
    """Turn off link-local addresses, router solicitations and reverse path filters of an interface.

    Only the hosts of the topology exist, and packets that a kernel sends by itself would change which random
    numbers meet which packets. Also let every user bind low ports and ping.
    """
    for setting, value in (("addr_gen_mode", "1"), ("router_solicitations", "0"), ("accept_ra", "0")):
        with contextlib.suppress(OSError):
            _write_sysctl(f"net/ipv6/conf/{name}/{setting}", value)
    for setting, value in (
        ("net/ipv4/conf/all/rp_filter", "0"),
        (f"net/ipv4/conf/{name}/rp_filter", "0"),
        ("net/ipv4/ip_unprivileged_port_start", "0"),
        ("net/ipv4/ping_group_range", f"{os.getegid()} {os.getegid()}"),
    ):
        with contextlib.suppress(OSError):
            _write_sysctl(setting, value)


def _route_local_traffic_out(netlink: Netlink, name: str) -> None:
    """Send this host's packets to itself out of the interface, and accept them when they come back.

    1. The first routing rule delivers packets to local addresses locally, so they never leave the host. A
       rule before it, for packets that the host itself sends (`iif lo`), looks up a separate table.
    2. A returning packet has one of the host's own addresses as its source, which a kernel normally rejects
       as spoofed (accept_local). It may be for 127.0.0.0/8, which must not appear on a network (RFC 1122
       section 3.2.1.3; route_localnet).
    3. IPv6 has no such setting: the kernel accepts no packet for ::1 from outside. So `localhost` resolves to
       the host's other IPv6 address.
    """
    _write_sysctl(f"net/ipv4/conf/{name}/route_localnet", "1")
    _write_sysctl(f"net/ipv4/conf/{name}/accept_local", "1")
    for family in (socket.AF_INET, socket.AF_INET6):
        with _ignore_missing_ipv6(4 if family == socket.AF_INET else 6):
            netlink.add_rule(family, 1, _LOOP_TABLE, "lo")
            netlink.add_rule(family, 2, 255)
            netlink.delete_first_rule(family)


@contextlib.contextmanager
def _ignore_missing_ipv6(version: int) -> Iterator[None]:
    """Ignore an OSError of an IPv6 operation if the kernel has no IPv6."""
    try:
        yield
    except OSError:
        if version == 4 or Path("/proc/net/if_inet6").exists():
            raise


def _write_sysctl(setting: str, value: str) -> None:
    Path("/proc/sys", setting).write_text(value, encoding="ascii")
