"""Links, addresses, routes and rules, by rtnetlink(7): what `ip` does, in the namespace that we are in.

Numbers are in the machine's order, addresses as they stand in packets. Each request waits for the kernel's
answer, so what has returned is done.
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
_ERROR: Final = 2  # NLMSG_ERROR, which with 0 is an acknowledgement
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

_LINK: Final = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, which of them change
_ADDRESS: Final = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix, flags, scope, index
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # rtmsg, and fib_rule_hdr, which has the same form
_LINK_CHANGES: Final = 1  # RTMGRP_LINK
_IFF_UP, _IFF_NOARP = 0x1, 0x80
_NO_DUPLICATE_DETECTION: Final = 0x02  # IFA_F_NODAD: nobody else is there, and a second is long
_PROTOCOL_STATIC, _SCOPE_LINK, _UNICAST, _TO_TABLE = 4, 253, 1, 1


def open_link_monitor() -> socket.socket:
    """A socket that hears when an interface of the namespace that we are in changes. Raises OSError."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    sock.bind((0, _LINK_CHANGES))
    return sock


class Netlink:
    """A socket to the kernel, for the network namespace that we are in when it is made.

    Every method raises OSError with what the kernel answers.
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
        """A pair of Ethernet devices: one here, its peer in the network namespace of that descriptor."""
        other = _LINK.pack(0, 0, 0, 0, 0) + _string_attribute(_IFLA_NAME, peer)
        other += _attribute(_IFLA_NAMESPACE, struct.pack("=I", namespace))
        info = _string_attribute(_INFO_KIND, "veth") + _attribute(_INFO_DATA, _attribute(_VETH_PEER, other))
        body = (
            _LINK.pack(0, 0, 0, 0, 0) + _string_attribute(_IFLA_NAME, name) + _attribute(_IFLA_LINKINFO, info)
        )
        self._request(_NEW_LINK, _CREATE, body)

    def set_link(self, name: str, *, up: bool, mtu: int = 0, queue: int = 0, arp: bool = True) -> None:
        """Turn an interface up or down; `mtu` in bytes and `queue` in packets are left alone where 0.

        Without `arp` it asks for nobody's hardware address.
        """
        flags = (_IFF_UP if up else 0) | (0 if arp else _IFF_NOARP)
        body = _LINK.pack(0, 0, socket.if_nametoindex(name), flags, _IFF_UP | (0 if arp else _IFF_NOARP))
        for kind, value in ((_IFLA_MTU, mtu), (_IFLA_QUEUE, queue)):
            if value:
                body += _attribute(kind, struct.pack("=I", value))
        self._request(_NEW_LINK, _REQUEST, body)

    def add_address(self, name: str, address: IpAddress) -> None:
        """Give an interface an address, which no other host on it is assumed to share a network with."""
        prefix = address.max_prefixlen
        body = _ADDRESS.pack(
            _family(address), prefix, _NO_DUPLICATE_DETECTION, 0, socket.if_nametoindex(name)
        )
        body += _attribute(_IFA_LOCAL, address.packed) + _attribute(_IFA_ADDRESS, address.packed)
        self._request(_NEW_ADDRESS, _CREATE, body)

    def add_route(self, to: IpNetwork, name: str, source: IpAddress, table: int = MAIN_TABLE) -> None:
        """What goes to a network leaves by an interface, from `source` where the program doesn't choose."""
        prefix = to.prefixlen
        head = _ROUTE.pack(_family(source), prefix, 0, 0, table, _PROTOCOL_STATIC, _SCOPE_LINK, _UNICAST, 0)
        body = _attribute(_RTA_DESTINATION, to.network_address.packed) if prefix else b""
        body += _attribute(_RTA_INTERFACE, struct.pack("=I", socket.if_nametoindex(name)))
        body += _attribute(_RTA_SOURCE, source.packed)
        self._request(_NEW_ROUTE, _CREATE, head + body)

    def add_rule(self, family: int, priority: int, table: int, interface: str = "") -> None:
        """Look into a table, at this place among the rules; for `lo`, only what this host itself sends."""
        head = _ROUTE.pack(family, 0, 0, 0, table, 0, 0, _TO_TABLE, 0)
        body = _attribute(_FRA_PRIORITY, struct.pack("=I", priority))
        if interface:
            body += _string_attribute(_FRA_INTERFACE, interface)
        self._request(_NEW_RULE, _CREATE, head + body)

    def delete_first_rule(self, family: int) -> None:
        """Delete the rule that comes before all others: the one for local addresses."""
        head = _ROUTE.pack(family, 0, 0, 0, LOCAL_TABLE, 0, 0, _TO_TABLE, 0)
        self._request(_DELETE_RULE, _REQUEST, head + _attribute(_FRA_PRIORITY, struct.pack("=I", 0)))

    def _request(self, kind: int, flags: int, body: bytes) -> None:
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
        answer = self._socket.recv(65536)
        _, what, _, _, _ = _HEADER.unpack_from(answer)
        (number,) = struct.unpack_from("=i", answer, _HEADER.size)
        if what != _ERROR:
            raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
        if number:
            raise OSError(-number, os.strerror(-number))


def _family(address: IpAddress) -> int:
    return int(socket.AF_INET if address.version == 4 else socket.AF_INET6)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _string_attribute(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")
