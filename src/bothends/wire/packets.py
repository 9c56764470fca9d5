"""Parse, fragment and reject IP packets. Pure functions on bytes.

RFC 791 (IPv4), RFC 792 (ICMP), RFC 8200 (IPv6), RFC 4443 (ICMPv6). Numbers are in network byte order. Packets
come from programs that may send anything: a malformed packet yields None or is passed on, and never raises.
"""

from __future__ import annotations

import struct
from typing import Final

from bothends.checksum import checksum
from bothends.wire.netlink import IpAddress

MIN_HEADER_SIZE: Final = {4: 20, 6: 40}  # bytes of an IP header
IGMP: Final = 2
_ICMP, _HOP_BY_HOP, _ICMPV6 = 1, 0, 58
MAYBE_LINK_CONTROL: Final = frozenset({_HOP_BY_HOP, _ICMPV6})
"""Values of IPv6's first Next Header field for which `is_link_control` must look further."""

_DONT_FRAGMENT, _MORE_FRAGMENTS, _OFFSET = 0x4000, 0x2000, 0x1FFF

# ICMPv6 types of group membership, router and neighbour discovery (RFC 4443, 4861, 3810). On a wire no host
# needs them, and a kernel sends them at unpredictable times: they would consume random numbers, and two runs
# with the same seed would differ.
_LINK_CONTROL_TYPES: Final = frozenset({130, 131, 132, 133, 134, 135, 136, 137, 143})

# ICMP errors, which must not be answered with an error (RFC 1122 section 3.2.2)
_IPV4_ERRORS: Final = frozenset({3, 4, 5, 11, 12})
_IPV4_QUOTE: Final = 576 - 28  # bytes of the offending packet in an ICMP error (RFC 1812 section 4.3.2.3)
_IPV6_QUOTE: Final = 1280 - 48  # RFC 4443 section 3
_HOP_LIMIT: Final = 64


def version_of(packet: bytes) -> int:
    """Return 4 or 6, or 0 if it is not an IP packet."""
    version = packet[0] >> 4 if packet else 0
    return version if len(packet) >= MIN_HEADER_SIZE.get(version, 1 << 16) else 0


def destination_of(packet: bytes) -> bytes:
    """Return the destination address of an IP packet, as 4 or 16 bytes."""
    return packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]


def source_of(packet: bytes) -> bytes:
    """Return the source address of an IP packet, as 4 or 16 bytes."""
    return packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]


def is_multicast_or_broadcast(destination: bytes) -> bool:
    """Return whether an address is a multicast or broadcast address."""
    if len(destination) == 16:
        return destination[0] == 0xFF
    return destination[0] & 0xF0 == 0xE0 or destination == b"\xff" * 4


def is_link_control(packet: bytes) -> bool:
    """Return whether a packet is IGMP, MLD, or neighbour or router discovery, which no program sends."""
    if packet[0] >> 4 == 4:
        return packet[9] == IGMP
    following, at = packet[6], 40
    if following == _HOP_BY_HOP and len(packet) > 48:  # a router alert option precedes MLD (RFC 3810)
        following, at = packet[40], 40 + 8 * (packet[41] + 1)
    return following == _ICMPV6 and len(packet) > at and packet[at] in _LINK_CONTROL_TYPES


def fragments(packet: bytes, mtu: int) -> list[bytes] | None:
    """Fragment an IPv4 packet into packets of at most `mtu` bytes (RFC 791 section 3.2).

    Returns None if it must not be fragmented: its Don't Fragment flag is set, or it is IPv6, where only the
    sender fragments (RFC 8200 section 5).
    """
    if packet[0] >> 4 != 4:
        return None
    (flags,) = struct.unpack_from("!H", packet, 6)
    head = (packet[0] & 0x0F) * 4
    size = (mtu - head) // 8 * 8  # offsets are in units of eight bytes
    if flags & _DONT_FRAGMENT or size <= 0 or head < 20:
        return None
    data = packet[head:]
    parts = []
    for at in range(0, len(data), size):
        part = data[at : at + size]
        header = bytearray(packet[:head])
        more = _MORE_FRAGMENTS if at + size < len(data) else flags & _MORE_FRAGMENTS
        struct.pack_into("!H", header, 2, head + len(part))
        struct.pack_into("!H", header, 6, more | (flags & _OFFSET) + at // 8)
        struct.pack_into("!H", header, 10, 0)
        struct.pack_into("!H", header, 10, checksum(bytes(header)))
        parts.append(bytes(header) + part)
    return parts


def packet_too_big(packet: bytes, mtu: int, router: tuple[IpAddress, ...]) -> bytes | None:
    """Return the ICMP error with the largest possible MTU: RFC 1191 section 4, RFC 4443 section 3.2."""
    if packet[0] >> 4 == 4:
        return _icmp_error(packet, 3, 4, mtu, router)
    return _icmp_error(packet, 2, 0, mtu, router)


def destination_unreachable(packet: bytes, router: tuple[IpAddress, ...]) -> bytes | None:
    """Return the ICMP error for an address that no host has: RFC 792, RFC 4443 section 3.1."""
    if packet[0] >> 4 == 4:
        return _icmp_error(packet, 3, 1, 0, router)
    return _icmp_error(packet, 1, 3, 0, router)


def _icmp_error(
    packet: bytes, kind: int, code: int, value: int, router: tuple[IpAddress, ...]
) -> bytes | None:
    """Return an ICMP error about a packet, to its sender, or None if it must not be sent."""
    if not _allows_icmp_error(packet):
        return None
    sender = source_of(packet)
    if packet[0] >> 4 == 4:
        body = struct.pack("!BBHI", kind, code, 0, value) + packet[:_IPV4_QUOTE]
        body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
        header = struct.pack("!BBHHHBBH", 0x45, 0xC0, 20 + len(body), 0, 0, _HOP_LIMIT, _ICMP, 0)
        header += router[0].packed + sender
        return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body
    body = struct.pack("!BBHI", kind, code, 0, value) + packet[:_IPV6_QUOTE]
    addresses = router[1].packed + sender
    pseudo = addresses + struct.pack("!II", len(body), _ICMPV6)  # RFC 8200 section 8.1
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    return struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, _HOP_LIMIT) + addresses + body


def _allows_icmp_error(packet: bytes) -> bool:
    """Return False for ICMP errors, multicasts and later fragments: RFC 1122 3.2.2, RFC 4443 2.4."""
    if is_multicast_or_broadcast(destination_of(packet)) or not any(source_of(packet)):
        return False
    if packet[0] >> 4 == 6:
        return not (packet[6] == _ICMPV6 and len(packet) > 40 and packet[40] < 128)
    head = (packet[0] & 0x0F) * 4
    (flags,) = struct.unpack_from("!H", packet, 6)
    if flags & _OFFSET:
        return False
    return not (packet[9] == _ICMP and len(packet) > head and packet[head] in _IPV4_ERRORS)
