"""How packets come to us: TUN devices, or veth pairs and packet sockets. To be called inside.

1. A TUN device gives each IP packet that its host sends to whoever has its descriptor, once, at most as long
   as the MTU, and takes packets for the host in the same way.
2. /dev/net/tun may be closed to us (mode 0600 on some systems). Then a veth pair does as well: its host's
   end looks the same from inside, and at our end a packet socket reads and writes frames (packet(7)).
3. Our end is in a network namespace of the wire's own, where nothing else is.
4. Where each packet is to be as on a cable, a host's offloads must be off: otherwise it hands over segments
   of 64 KiB, without checksums (ethtool(8)), and `offload.py` has to finish them.
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
# linux/ethtool.h: transmit checksums, scatter-gather, TSO, GSO; and GRO, which would join what we send
_OFFLOADS: Final = (0x17, 0x19, 0x1F, 0x24)
_GRO: Final = 0x2C
_ETH_P_ALL: Final = 0x0003
# linux/if_packet.h; the latter since Linux 4.20
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 15, 23
_SO_RCVBUFFORCE: Final = 33
_RECEIVE_BUFFER: Final = 8 * 1024 * 1024  # bytes: some thousand frames

HOST_MTU: Final = 1500
"""Of every interface. A smaller MTU is that of the wire, so that hosts must find it out (RFC 1191)."""

_TX_QUEUE_LENGTH: Final = 1000  # packets: tc's and Ethernet's usual length; a TUN's own is 500
_LOOP_TABLE: Final = 100


def open_tun(name: str) -> int:
    """A TUN device of this name in the network namespace that we are in; its descriptor. Raises OSError.

    Before each packet there is the header of `offload.py`.
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
    """Let a TUN's host leave segmentation and checksums to us, or don't, from now on; what is under way
    stays as it is. Raises OSError."""
    fcntl.ioctl(descriptor, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6 if on else 0)


def open_packet_socket(name: str) -> socket.socket:
    """A socket for all frames of an interface in the namespace that we are in. Raises OSError.

    Before each frame there is the header of `offload.py`.
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
    """The Ethernet address of an interface, 6 bytes. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, _SIOCGIFHWADDR, struct.pack("16s24x", name.encode()))
    return answer[18:24]


def set_veth_offload(name: str, *, on: bool) -> None:
    """Let a veth's sender leave segmentation and checksums to who receives, or let every frame be as it would
    be on a cable."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for command in (*_OFFLOADS, _GRO):
            value = array.array("B", struct.pack("=II", command, on and command != _GRO))
            request = struct.pack("16sP16x", name.encode(), value.buffer_info()[0])
            with contextlib.suppress(OSError):  # not one that this kernel's veth has
                fcntl.ioctl(sock, _SIOCETHTOOL, request)


def set_up(host: Host, shape: Shape) -> None:
    """Addresses, routes and settings of a host in whose namespace we are, its interfaces being there.

    Raises OSError. Without IPv6 in the kernel, IPv4 alone.
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
    """Addresses and routes of a host in whose namespace we are, as far as they aren't there.

    An interface that goes down takes its routes along, and its IPv6 addresses: with this it has them again
    when it comes up. Raises OSError.
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
                back = shape == "loop" and network not in DEFAULT_ROUTES
                with _ignore_missing_ipv6(network.version), contextlib.suppress(FileExistsError):
                    netlink.add_route(network, each.name, source, _LOOP_TABLE if back else MAIN_TABLE)


def _disable_autoconfiguration(name: str) -> None:
    """No link-local address, no search for routers, no check for duplicates: nobody but the plan's hosts is
    there, and what a kernel sends unasked would only be in the way."""
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
    """Let what this host sends to itself leave by the interface, and take it back when it comes from there.

    1. The rule that delivers local addresses comes first among all, so nothing local ever leaves. A rule
       before it, for what the host itself sends (that has `iif lo`), leads to a table of ours.
    2. What comes back has our own address as its source, which would be an attack anywhere else
       (accept_local), and is for 127.0.0.0/8, which no cable may carry (RFC 1122 section 3.2.1.3;
       route_localnet).
    3. IPv6 has no such setting: the kernel takes nothing for ::1 from outside. So `localhost` is this
       host's other address there.
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
    """What fails only because the kernel has no IPv6 may fail."""
    try:
        yield
    except OSError:
        if version == 4 or Path("/proc/net/if_inet6").exists():
            raise


def _write_sysctl(setting: str, value: str) -> None:
    Path("/proc/sys", setting).write_text(value, encoding="ascii")
