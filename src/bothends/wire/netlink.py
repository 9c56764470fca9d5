"""Create links, addresses, routes and rules in the current network namespace, as `ip` does: rtnetlink(7).

Numbers are in host byte order, addresses in network byte order. Each request waits for the kernel's
acknowledgement, so its effect is complete when the method returns.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from types import TracebackType
from typing import Final, Self, TypeAlias

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ERROR: Final = 2  # NLMSG_ERROR; with error number 0 it is an acknowledgement
_REQUEST: Final = 0x1 | 0x4  # NLM_F_REQUEST | NLM_F_ACK
_CREATE: Final = _REQUEST | 0x200 | 0x400  # NLM_F_EXCL | NLM_F_CREATE

# linux/rtnetlink.h
_NEW_LINK, _NEW_ADDRESS, _NEW_ROUTE, _NEW_RULE, _DELETE_RULE = 16, 20, 24, 32, 33
MAIN_TABLE: Final = 254
LOCAL_TABLE: Final = 255

# linux/if_link.h, linux/if_addr.h, linux/fib_rules.h: attributes
_IFLA_NAME, _IFLA_MTU, _IFLA_QUEUE, _IFLA_LINKINFO, _IFLA_NAMESPACE = 3, 4, 13, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DESTINATION, _RTA_INTERFACE, _RTA_SOURCE, _RTA_TABLE = 1, 4, 7, 15
_FRA_INTERFACE, _FRA_PRIORITY, _FRA_TABLE = 3, 6, 15

_LINK: Final = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, mask of flags
_ADDRESS: Final = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix, flags, scope, index
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # rtmsg, and fib_rule_hdr, which has the same layout
_LINK_CHANGES: Final = 1  # RTMGRP_LINK
_IFF_UP, _IFF_NOARP = 0x1, 0x80
_NO_DUPLICATE_DETECTION: Final = 0x02  # IFA_F_NODAD: no other host can have the address; the check takes 1 s
_PROTOCOL_STATIC, _SCOPE_LINK, _SCOPE_HOST, _UNICAST, _LOCAL, _TO_TABLE = 4, 253, 254, 1, 2, 1


def open_link_monitor() -> socket.socket:
    """Open a socket that is readable when an interface of the current namespace changes. Raises OSError."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    sock.bind((0, _LINK_CHANGES))
    return sock


class Netlink:
    """A netlink socket for the network namespace in which it is created. A context manager.

    Every method raises OSError with the kernel's error number.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def add_veth(self, name: str, peer: str, namespace: int) -> None:
        """Create a pair of Ethernet devices: `name` here, `peer` in the network namespace of a descriptor."""
        other = _LINK.pack(0, 0, 0, 0, 0) + _string_attribute(_IFLA_NAME, peer)
        other += _attribute(_IFLA_NAMESPACE, struct.pack("=I", namespace))
        info = _string_attribute(_INFO_KIND, "veth") + _attribute(_INFO_DATA, _attribute(_VETH_PEER, other))
        body = (
            _LINK.pack(0, 0, 0, 0, 0) + _string_attribute(_IFLA_NAME, name) + _attribute(_IFLA_LINKINFO, info)
        )
        self._request(_NEW_LINK, _CREATE, body)

    def set_link(self, name: str, *, up: bool, mtu: int = 0, queue: int = 0, arp: bool = True) -> None:
        """Turn an interface up or down, and set its MTU and transmit queue length.

        Args:
            name: of the interface.
            up: whether it is up.
            mtu: in bytes; 0 leaves it unchanged.
            queue: in packets; 0 leaves it unchanged.
            arp: False to send no ARP requests.
        """
        flags = (_IFF_UP if up else 0) | (0 if arp else _IFF_NOARP)
        body = _LINK.pack(0, 0, socket.if_nametoindex(name), flags, _IFF_UP | (0 if arp else _IFF_NOARP))
        for kind, value in ((_IFLA_MTU, mtu), (_IFLA_QUEUE, queue)):
            if value:
                body += _attribute(kind, struct.pack("=I", value))
        self._request(_NEW_LINK, _REQUEST, body)

    def add_address(self, name: str, address: IpAddress) -> None:
        """Add an address with a full-length prefix, so it implies no route to a network."""
        prefix = address.max_prefixlen
        body = _ADDRESS.pack(
            _family(address), prefix, _NO_DUPLICATE_DETECTION, 0, socket.if_nametoindex(name)
        )
        body += _attribute(_IFA_LOCAL, address.packed) + _attribute(_IFA_ADDRESS, address.packed)
        self._request(_NEW_ADDRESS, _CREATE, body)

    def add_route(self, to: IpNetwork, name: str, source: IpAddress, table: int = MAIN_TABLE) -> None:
        """Route a network through an interface. `source` is the default source address."""
        prefix = to.prefixlen
        head = _ROUTE.pack(_family(source), prefix, 0, 0, table, _PROTOCOL_STATIC, _SCOPE_LINK, _UNICAST, 0)
        body = _attribute(_RTA_DESTINATION, to.network_address.packed) if prefix else b""
        body += _attribute(_RTA_INTERFACE, struct.pack("=I", socket.if_nametoindex(name)))
        body += _attribute(_RTA_SOURCE, source.packed)
        self._request(_NEW_ROUTE, _CREATE, head + body)

    def make_every_address_local(self, name: str) -> None:
        """Deliver packets to any address here, and allow programs to bind any: routes of type local.

        `name`: the interface that the packets pass, the loopback interface.
        """
        interface = _attribute(_RTA_INTERFACE, struct.pack("=I", socket.if_nametoindex(name)))
        for family in (socket.AF_INET, socket.AF_INET6):
            head = _ROUTE.pack(family, 0, 0, 0, LOCAL_TABLE, _PROTOCOL_STATIC, _SCOPE_HOST, _LOCAL, 0)
            try:
                self._request(_NEW_ROUTE, _CREATE, head + interface)
            except OSError:
                if family == socket.AF_INET:  # a kernel may be built without IPv6
                    raise

    def add_rule(self, family: int, priority: int, table: int, interface: str = "") -> None:
        """Add a rule that looks up a table. With `interface="lo"` it applies to locally sent packets only."""
        head = _ROUTE.pack(family, 0, 0, 0, table, 0, 0, _TO_TABLE, 0)
        body = _attribute(_FRA_PRIORITY, struct.pack("=I", priority))
        if interface:
            body += _string_attribute(_FRA_INTERFACE, interface)
        self._request(_NEW_RULE, _CREATE, head + body)

    def delete_first_rule(self, family: int) -> None:
        """Delete the rule of priority 0, which delivers packets to local addresses."""
        head = _ROUTE.pack(family, 0, 0, 0, LOCAL_TABLE, 0, 0, _TO_TABLE, 0)
        self._request(_DELETE_RULE, _REQUEST, head + _attribute(_FRA_PRIORITY, struct.pack("=I", 0)))

    def _request(self, kind: int, flags: int, body: bytes) -> None:
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
        answer = self._socket.recv(65536)
        _, message_type, _, _, _ = _HEADER.unpack_from(answer)
        (number,) = struct.unpack_from("=i", answer, _HEADER.size)
        if message_type != _ERROR:
            raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
        if number:
            raise OSError(-number, os.strerror(-number))


def _family(address: IpAddress) -> int:
    return int(socket.AF_INET if address.version == 4 else socket.AF_INET6)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _string_attribute(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")
