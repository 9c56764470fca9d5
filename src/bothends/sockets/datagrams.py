"""Datagrams that are answered from the address that was asked.

A UDP socket bound to every interface has no address of its own: for an answer the kernel picks one by route,
and on a machine with several addresses that may be another than the one that was asked. The asker, who
connected its socket, or sits behind a NAT, then drops the answer. So the address comes with each datagram
(IP_PKTINFO in ip(7), IPV6_RECVPKTINFO in ipv6(7), RFC 3542 section 6) and goes back with the answer.

An IPv6 socket that takes IPv4 too tells of both by IPV6_PKTINFO, with mapped addresses, and takes them so.
"""

from __future__ import annotations

import errno
import functools
import socket
import struct
from typing import Any, Final

# The largest UDP payload is 65,507 bytes over IPv4 and 65,527 over IPv6 (RFC 768, RFC 8200): a buffer of this
# size never cuts one.
DATAGRAM_SIZE: Final = 65535

Ancillary = list[tuple[int, int, bytes]]

_IP_PKTINFO: Final = 8  # linux/in.h; not in the socket module
_IN_PKTINFO: Final = struct.Struct("=i4s4s")  # interface, address to answer from, destination
_IN6_PKTINFO: Final = struct.Struct("=16sI")  # destination, interface
_CMSG_SPACE: Final = socket.CMSG_SPACE(_IN_PKTINFO.size) + socket.CMSG_SPACE(_IN6_PKTINFO.size)

# An address that nothing can be sent from: the destination was a broadcast.
_SOURCE_UNUSABLE: Final = frozenset({errno.EINVAL, errno.EADDRNOTAVAIL})


def enable_pktinfo(sock: socket.socket) -> bool:
    """Have a datagram socket that is bound to every interface tell which address each datagram was sent to.

    False where that is no question, as the socket is bound to one address or is no Internet socket: give
    the answer to `receive_datagram` as `wildcard`.
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
    """Receive one datagram: its bytes, whether it was longer than `size` bytes, its sender, and what
    `send_datagram` needs for the answer.

    Raises OSError as recvmsg(2): BlockingIOError on a non-blocking socket, and the error that an earlier
    answer met on its way (ECONNREFUSED on a connected socket, udp(7)).
    """
    if wildcard:
        data, ancillary, flags, sender = sock.recvmsg(size, _CMSG_SPACE)
        return data, bool(flags & socket.MSG_TRUNC), sender, _reply_ancillary(ancillary)
    # recvfrom has no flags to give back; a byte more of room shows as well whether there was more.
    data, sender = sock.recvfrom(size + 1)
    if len(data) > size:
        return data[:size], True, sender, []
    return data, False, sender, []


def send_datagram(sock: socket.socket, data: bytes, peer: Any, ancillary: Ancillary | None = None) -> int:
    """Send one datagram to `peer`, from the address that `ancillary` (of `receive_datagram`) holds.

    Raises OSError as sendmsg(2).
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


@functools.lru_cache(maxsize=256)  # a machine has few addresses
def _reply_pktinfo(level: int, kind: int, value: bytes) -> Ancillary:
    """The same information turned round. Interface 0 leaves the way to the routing table."""
    if level == socket.IPPROTO_IP:
        _, source, _ = _IN_PKTINFO.unpack(value[: _IN_PKTINFO.size])
        return [(level, kind, _IN_PKTINFO.pack(0, source, bytes(4)))]
    destination, interface = _IN6_PKTINFO.unpack(value[: _IN6_PKTINFO.size])
    if destination[0] == 0xFF:  # multicast (RFC 4291 section 2.7): not an address to send from
        return []
    is_link_local = destination[0] == 0xFE and destination[1] & 0xC0 == 0x80
    return [(level, kind, _IN6_PKTINFO.pack(destination, interface if is_link_local else 0))]
