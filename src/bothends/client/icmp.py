"""ICMP echo as bytes: build and parse messages, and describe ICMP errors.

Pure. How this file works:

1. Every number in a packet is in network byte order, the most significant byte first (RFC 791, appendix B).
   In `struct` that is the `!` at the start of a format. Without it the host's byte order and alignment would
   apply, and messages would be correct only between hosts of the same byte order. The kernel's data about a
   packet (sock_extended_err) is in host byte order: `=`.
2. Echo in ICMP (RFC 792, page 14) and ICMPv6 (RFC 4443 sections 4.1, 4.2) differs only in the type numbers
   and the checksum. The checksum of ICMPv6 covers the addresses too (section 2.3); only the kernel knows them
   for certain, so it fills in the checksum (RFC 3542 section 3.1).
3. Parsing never raises: anything that is not an echo gives None, because any host can send anything.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final

from bothends.checksum import checksum

# Types: RFC 792 and RFC 4443. IP version -> number.
REQUEST: Final = {4: 8, 6: 128}
REPLY: Final = {4: 0, 6: 129}

HEADER: Final = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number
SEQUENCE_MODULUS: Final = 1 << 16  # the sequence number has 16 bits and wraps to 0
MAX_PAYLOAD: Final = 65507  # bytes: an IPv4 packet of 65,535 minus 20 for the IP header and 8 for ICMP


@dataclass(frozen=True, slots=True)
class IcmpEcho:
    """An echo message. `identifier` identifies the sender, `sequence` its messages; 16 bits each."""

    identifier: int
    sequence: int
    payload: bytes


def build_request(version: int, echo: IcmpEcho) -> bytes:
    """Build an echo request for IP `version` 4 or 6. The kernel fills in the checksum of ICMPv6."""
    return _build(REQUEST[version], version, echo)


def build_reply(version: int, echo: IcmpEcho) -> bytes:
    """Build an echo reply, as kernels send it. For tests."""
    return _build(REPLY[version], version, echo)


def _build(kind: int, version: int, echo: IcmpEcho) -> bytes:
    message = HEADER.pack(kind, 0, 0, echo.identifier, echo.sequence) + echo.payload
    value = checksum(message) if version == 4 else 0
    return HEADER.pack(kind, 0, value, echo.identifier, echo.sequence) + echo.payload


def parse_reply(version: int, message: bytes) -> IcmpEcho | None:
    """Parse an echo reply. Returns None for any other message."""
    return _parse(REPLY[version], message)


def parse_request(version: int, message: bytes) -> IcmpEcho | None:
    """Parse an echo request, such as one quoted by an ICMP error. Returns None for any other message."""
    return _parse(REQUEST[version], message)


def _parse(kind: int, message: bytes) -> IcmpEcho | None:
    if len(message) < HEADER.size:
        return None
    message_kind, code, _, identifier, sequence = HEADER.unpack_from(message)
    if (message_kind, code) != (kind, 0):
        return None
    return IcmpEcho(identifier, sequence, message[HEADER.size :])


def strip_ip_header(packet: bytes) -> bytes | None:
    """Return the payload of an IPv4 packet from a raw socket (raw(7)), or None if it is not valid."""
    if not packet or packet[0] >> 4 != 4:
        return None
    length = (packet[0] & 0x0F) * 4  # the header length in 32-bit words (RFC 791 section 3.1)
    return packet[length:] if 20 <= length <= len(packet) else None


def unwrap_sequence(sequence: int, last_number: int) -> int:
    """Return the full probe number for 16 bits of it: the largest one not after `last_number`."""
    return last_number - (last_number - sequence) % SEQUENCE_MODULUS


def reply_filter(version: int) -> bytes:
    """Return the filter with which a raw socket receives echo replies only: a set bit blocks its type.

    For ICMP one 32-bit word (raw(7), ICMP_FILTER); for ICMPv6 eight, the lowest bit first (RFC 3542
    section 3.2, struct icmp6_filter). In host byte order, because only the local kernel reads it.
    """
    words = [0xFFFFFFFF] * (1 if version == 4 else 8)
    word, bit = divmod(REPLY[version], 32)
    words[word] &= ~(1 << bit) & 0xFFFFFFFF
    return struct.pack(f"={len(words)}I", *words)


# Errors

_UNREACHABLE: Final = "destination unreachable"
_TIME_EXCEEDED: Final = "time exceeded"

# (version, type, code): RFC 792, RFC 1122 section 3.2.2.1, RFC 1812 section 5.2.7.1; RFC 4443 section 3.
_CODE_TEXTS: Final = {
    (4, 3, 0): f"{_UNREACHABLE}: no route to that network",
    (4, 3, 1): f"{_UNREACHABLE}: the last router cannot reach the host",
    (4, 3, 2): f"{_UNREACHABLE}: the host does not support this protocol",
    (4, 3, 3): f"{_UNREACHABLE}: no socket is bound to the port",
    (4, 3, 4): f"{_UNREACHABLE}: too large for a link on the path, and fragmentation is not allowed",
    (4, 3, 5): f"{_UNREACHABLE}: source route failed",
    (4, 3, 6): f"{_UNREACHABLE}: network unknown",
    (4, 3, 7): f"{_UNREACHABLE}: host unknown",
    (4, 3, 9): f"{_UNREACHABLE}: network prohibited",
    (4, 3, 10): f"{_UNREACHABLE}: host prohibited",
    (4, 3, 11): f"{_UNREACHABLE}: network unreachable with this type of service",
    (4, 3, 12): f"{_UNREACHABLE}: host unreachable with this type of service",
    (4, 3, 13): f"{_UNREACHABLE}: prohibited by a filter",
    (4, 11, 0): f"{_TIME_EXCEEDED}: the hop limit was exceeded in transit",
    (4, 11, 1): f"{_TIME_EXCEEDED}: fragments are missing",
    (6, 1, 0): f"{_UNREACHABLE}: no route",
    (6, 1, 1): f"{_UNREACHABLE}: prohibited by a filter",
    (6, 1, 2): f"{_UNREACHABLE}: beyond the scope of the source address",
    (6, 1, 3): f"{_UNREACHABLE}: the last router cannot reach the host",
    (6, 1, 4): f"{_UNREACHABLE}: no socket is bound to the port",
    (6, 1, 5): f"{_UNREACHABLE}: source address prohibited by a filter",
    (6, 1, 6): f"{_UNREACHABLE}: rejected by the route",
    (6, 2, 0): "too large for a link on the path",
    (6, 3, 0): f"{_TIME_EXCEEDED}: the hop limit was exceeded in transit",
    (6, 3, 1): f"{_TIME_EXCEEDED}: fragments are missing",
}
_TYPE_TEXTS: Final = {
    (4, 3): _UNREACHABLE,
    (4, 4): "source quench: slow down",
    (4, 5): "redirect",
    (4, 11): _TIME_EXCEEDED,
    (4, 12): "parameter problem in the header",
    (6, 1): _UNREACHABLE,
    (6, 2): "too large for a link on the path",
    (6, 3): _TIME_EXCEEDED,
    (6, 4): "parameter problem in the header",
}


def describe_error(version: int, kind: int, code: int, info: int = 0) -> str:
    """Describe an ICMP error. `info`: for "too large", the MTU of the link in bytes."""
    text = _CODE_TEXTS.get((version, kind, code))
    if text is None:
        text = f"{_TYPE_TEXTS.get((version, kind), f'ICMP type {kind}')}, code {code}"
    if (version, kind, code) in ((4, 3, 4), (6, 2, 0)) and info:
        text += f"; its MTU is {info} bytes"
    return text


@dataclass(frozen=True, slots=True)
class ExtendedError:
    """The kernel's details of an error (ip(7), IP_RECVERR): struct sock_extended_err.

    `version`: of IP, or 0 if the error arose on this machine; then `type` and `code` are meaningless.
    """

    errno: int
    version: int
    type: int
    code: int
    info: int

    @property
    def description(self) -> str:
        """The ICMP error as text; "" for an error of this machine, which has only an errno."""
        return describe_error(self.version, self.type, self.code, self.info) if self.version else ""


# linux/errqueue.h: ee_errno, ee_origin, ee_type, ee_code, ee_pad, ee_info, ee_data.
_SOCK_EXTENDED_ERR: Final = struct.Struct("=IBBBBII")
_ORIGINS: Final = {2: 4, 3: 6}  # SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6


def parse_extended_error(data: bytes) -> ExtendedError | None:
    """Parse the ancillary data of a message on the error queue. Returns None if it is truncated."""
    if len(data) < _SOCK_EXTENDED_ERR.size:
        return None
    number, origin, kind, code, _, info, _ = _SOCK_EXTENDED_ERR.unpack_from(data)
    return ExtendedError(number, _ORIGINS.get(origin, 0), kind, code, info)


def parse_offender(data: bytes) -> str:
    """Return the address of the sender of the error: the sockaddr after the struct; "" if there is none."""
    rest = data[_SOCK_EXTENDED_ERR.size :]
    if len(rest) < 8:
        return ""
    (family,) = struct.unpack_from("=H", rest)  # in host byte order, unlike the fields after it
    if family == socket.AF_INET:  # sockaddr_in: family, port, address
        return socket.inet_ntop(family, rest[4:8])
    if family == socket.AF_INET6 and len(rest) >= 24:  # sockaddr_in6: family, port, flow, address
        return socket.inet_ntop(family, rest[8:24])
    return ""
