"""Receive datagrams, and reply from the address to which each was sent.

A UDP socket bound to every interface has no fixed source address: the kernel chooses the source of a reply by
route, so on a machine with several addresses it may differ from the address that the request was sent to.
A client that has connected its socket, or is behind a NAT, then drops the reply. So the destination address
is received with each datagram (IP_PKTINFO in ip(7), IPV6_RECVPKTINFO in ipv6(7), RFC 3542 section 6) and used
as the source of the reply.

A dual-stack IPv6 socket reports both families with IPV6_PKTINFO, IPv4 as mapped addresses, and accepts them
in the same form.
"""

from __future__ import annotations

import errno
import functools
import socket
import struct
from typing import Any, Final

# Bytes. The largest UDP payload is 65,507 bytes over IPv4 and 65,527 over IPv6 (RFC 768, RFC 8200), so a
# buffer of this size never truncates one.
DATAGRAM_SIZE: Final = 65535

Ancillary = list[tuple[int, int, bytes]]

_IP_PKTINFO: Final = 8  # linux/in.h; not in the socket module
_IN_PKTINFO: Final = struct.Struct("=i4s4s")  # interface, source for replies, destination
_IN6_PKTINFO: Final = struct.Struct("=16sI")  # destination, interface
_CMSG_SPACE: Final = socket.CMSG_SPACE(_IN_PKTINFO.size) + socket.CMSG_SPACE(_IN6_PKTINFO.size)

# The destination cannot be a source address: it was a broadcast address.
_SOURCE_UNUSABLE: Final = frozenset({errno.EINVAL, errno.EADDRNOTAVAIL})


def enable_pktinfo(sock: socket.socket) -> bool:
    """Enable reporting of destination addresses on a datagram socket bound to every interface.

    Returns: whether it was enabled; pass it to `receive_datagram` as `wildcard`. False for a socket bound to
    one address and for a socket of another family, where the source of replies is fixed.
    """
    if sock.type != socket.SOCK_DGRAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    if sock.getsockname()[0] not in ("0.0.0.0", "::"):
        return False
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    return True


def receive_datagram(
    sock: socket.socket, size: int = DATAGRAM_SIZE, *, wildcard: bool = False
) -> tuple[bytes, bool, Any, Ancillary]:
    """Receive one datagram.

    Returns: its bytes, whether it was longer than `size` bytes, its sender, and the ancillary data to pass
    to `send_datagram` with the reply.

    Raises OSError as recvmsg(2) does: BlockingIOError on a non-blocking socket, and the delivery error of an
    earlier reply (ECONNREFUSED on a connected socket, udp(7)).
    """
    if wildcard:
        data, ancillary, flags, sender = sock.recvmsg(size, _CMSG_SPACE)
        return data, bool(flags & socket.MSG_TRUNC), sender, _reply_ancillary(ancillary)
    # recvfrom returns no flags, so one byte of extra room detects truncation.
    data, sender = sock.recvfrom(size + 1)
    if len(data) > size:
        return data[:size], True, sender, []
    return data, False, sender, []


def send_datagram(sock: socket.socket, data: bytes, peer: Any, ancillary: Ancillary | None = None) -> int:
    """Send one datagram to `peer`, from the address in `ancillary` (of `receive_datagram`).

    Raises OSError as sendmsg(2) does.
    """
    if not ancillary:
        return sock.sendto(data, peer)
    try:
        return sock.sendmsg([data], ancillary, 0, peer)
    except OSError as error:
        if error.errno not in _SOURCE_UNUSABLE:
            raise
        return sock.sendto(data, peer)


def _reply_ancillary(ancillary: list[tuple[int, int, bytes]]) -> Ancillary:
    for level, kind, value in ancillary:
        if (level, kind) in ((socket.IPPROTO_IP, _IP_PKTINFO), (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)):
            return _reply_pktinfo(level, kind, value)
    return []


@functools.lru_cache(maxsize=256)  # far more than the addresses of a machine
def _reply_pktinfo(level: int, kind: int, value: bytes) -> Ancillary:
    """Turn a received pktinfo into one for the reply. Interface 0 lets the routing table choose."""
    if level == socket.IPPROTO_IP:
        _, source, _ = _IN_PKTINFO.unpack(value[: _IN_PKTINFO.size])
        return [(level, kind, _IN_PKTINFO.pack(0, source, bytes(4)))]
    destination, interface = _IN6_PKTINFO.unpack(value[: _IN6_PKTINFO.size])
    if destination[0] == 0xFF:  # multicast (RFC 4291 section 2.7): not valid as a source
        return []
    is_link_local = destination[0] == 0xFE and destination[1] & 0xC0 == 0x80
    return [(level, kind, _IN6_PKTINFO.pack(destination, interface if is_link_local else 0))]
