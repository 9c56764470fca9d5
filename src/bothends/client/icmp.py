"""ICMP echo as bytes: building and reading messages, and what an ICMP error means in words.

Pure. How this file works:

1. Every number in a packet is in network byte order, the most significant byte first (RFC 791, appendix
   B). In `struct` that is the `!` at the start of a format; without it the machine's own order and
   alignment would be used, and a message that works between two PCs would be wrong everywhere else.
   What the kernel hands over about a packet (sock_extended_err) is in the machine's order: `=`.
2. Echo in ICMP (RFC 792, page 14) and ICMPv6 (RFC 4443 sections 4.1, 4.2) differs in the numbers of the
   types and in the checksum only: ICMPv6 adds the addresses to it (section 2.3), which the kernel alone
   knows for certain and therefore fills in (RFC 3542 section 3.1).
3. Reading never raises: what is no echo is None, for anyone can send anything.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final

from bothends.checksum import checksum

# Types: RFC 792 and RFC 4443. Version of IP -> number.
REQUEST: Final = {4: 8, 6: 128}
REPLY: Final = {4: 0, 6: 129}

HEADER: Final = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number
SEQUENCE_MODULUS: Final = 1 << 16  # the sequence number has 16 bits, and starts again from 0
MAX_PAYLOAD: Final = 65507  # bytes: an IPv4 packet has 65,535, 20 of them its header, 8 that of ICMP


@dataclass(frozen=True, slots=True)
class IcmpEcho:
    """An echo message: `identifier` tells one pinger from another, `sequence` its messages; 16 bits each."""

    identifier: int
    sequence: int
    payload: bytes


def build_request(version: int, echo: IcmpEcho) -> bytes:
    """An echo request for IP `version` 4 or 6. The checksum of ICMPv6 is left to the kernel."""
    return _build(REQUEST[version], version, echo)


def build_reply(version: int, echo: IcmpEcho) -> bytes:
    """The reply to an echo request; what a kernel sends, and what tests play."""
    return _build(REPLY[version], version, echo)


def _build(kind: int, version: int, echo: IcmpEcho) -> bytes:
    bare = HEADER.pack(kind, 0, 0, echo.identifier, echo.sequence) + echo.payload
    summed = checksum(bare) if version == 4 else 0
    return HEADER.pack(kind, 0, summed, echo.identifier, echo.sequence) + echo.payload


def parse_reply(version: int, message: bytes) -> IcmpEcho | None:
    """The echo reply that a message is, or None."""
    return _parse(REPLY[version], message)


def parse_request(version: int, message: bytes) -> IcmpEcho | None:
    """The echo request that a message is, or None. An ICMP error quotes the request that it is about."""
    return _parse(REQUEST[version], message)


def _parse(kind: int, message: bytes) -> IcmpEcho | None:
    if len(message) < HEADER.size:
        return None
    its_kind, code, _, identifier, sequence = HEADER.unpack_from(message)
    if (its_kind, code) != (kind, 0):
        return None
    return IcmpEcho(identifier, sequence, message[HEADER.size :])


def strip_ip_header(packet: bytes) -> bytes | None:
    """The message in an IPv4 packet, which is what a raw socket receives (raw(7)); None for no packet."""
    if not packet or packet[0] >> 4 != 4:
        return None
    length = (packet[0] & 0x0F) * 4  # the header's length in words of 32 bits (RFC 791 section 3.1)
    return packet[length:] if 20 <= length <= len(packet) else None


def unwrap_sequence(sequence: int, last_number: int) -> int:
    """The number of a probe from the 16 bits that are left of it: the last one not after `newest`."""
    return last_number - (last_number - sequence) % SEQUENCE_MODULUS


def reply_filter(version: int) -> bytes:
    """The filter under which a raw socket receives echo replies only: a bit set blocks its type.

    For ICMP one 32-bit word (raw(7), ICMP_FILTER); for ICMPv6 eight, the lowest bit first (RFC 3542
    section 3.2, struct icmp6_filter). Words in the machine's order: the kernel reads them, no other host.
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
    (4, 3, 1): f"{_UNREACHABLE}: the host does not answer its last router",
    (4, 3, 2): f"{_UNREACHABLE}: the host does not speak this protocol",
    (4, 3, 3): f"{_UNREACHABLE}: nobody has the port open",
    (4, 3, 4): f"{_UNREACHABLE}: too large for a link on the way, and not to be fragmented",
    (4, 3, 5): f"{_UNREACHABLE}: source route failed",
    (4, 3, 6): f"{_UNREACHABLE}: network unknown",
    (4, 3, 7): f"{_UNREACHABLE}: host unknown",
    (4, 3, 9): f"{_UNREACHABLE}: network prohibited",
    (4, 3, 10): f"{_UNREACHABLE}: host prohibited",
    (4, 3, 11): f"{_UNREACHABLE}: network not reached with this type of service",
    (4, 3, 12): f"{_UNREACHABLE}: host not reached with this type of service",
    (4, 3, 13): f"{_UNREACHABLE}: a filter prohibits it",
    (4, 11, 0): f"{_TIME_EXCEEDED}: the hops ran out on the way",
    (4, 11, 1): f"{_TIME_EXCEEDED}: a fragment did not come",
    (6, 1, 0): f"{_UNREACHABLE}: no route",
    (6, 1, 1): f"{_UNREACHABLE}: a filter prohibits it",
    (6, 1, 2): f"{_UNREACHABLE}: beyond the scope of the source address",
    (6, 1, 3): f"{_UNREACHABLE}: the host does not answer its last router",
    (6, 1, 4): f"{_UNREACHABLE}: nobody has the port open",
    (6, 1, 5): f"{_UNREACHABLE}: a filter prohibits the source address",
    (6, 1, 6): f"{_UNREACHABLE}: the route rejects it",
    (6, 2, 0): "too large for a link on the way",
    (6, 3, 0): f"{_TIME_EXCEEDED}: the hops ran out on the way",
    (6, 3, 1): f"{_TIME_EXCEEDED}: a fragment did not come",
}
_TYPE_TEXTS: Final = {
    (4, 3): _UNREACHABLE,
    (4, 4): "source quench: slow down",
    (4, 5): "redirect",
    (4, 11): _TIME_EXCEEDED,
    (4, 12): "parameter problem in the header",
    (6, 1): _UNREACHABLE,
    (6, 2): "too large for a link on the way",
    (6, 3): _TIME_EXCEEDED,
    (6, 4): "parameter problem in the header",
}


def describe_error(version: int, kind: int, code: int, info: int = 0) -> str:
    """What an ICMP error of this type and code says. `info`: for "too large", the link's MTU in bytes."""
    words = _CODE_TEXTS.get((version, kind, code))
    if words is None:
        words = f"{_TYPE_TEXTS.get((version, kind), f'ICMP type {kind}')}, code {code}"
    if (version, kind, code) in ((4, 3, 4), (6, 2, 0)) and info:
        words += f"; it takes {info} bytes"
    return words


@dataclass(frozen=True, slots=True)
class ExtendedError:
    """What the kernel says about an error (ip(7), IP_RECVERR): struct sock_extended_err.

    `version` of IP, or 0 where the error arose on this machine; then `type` and `code` mean nothing.
    """

    errno: int
    version: int
    type: int
    code: int
    info: int

    @property
    def description(self) -> str:
        """The error in words; empty for one of this machine, which is told by its errno."""
        return describe_error(self.version, self.type, self.code, self.info) if self.version else ""


# linux/errqueue.h: ee_errno, ee_origin, ee_type, ee_code, ee_pad, ee_info, ee_data.
_SOCK_EXTENDED_ERR: Final = struct.Struct("=IBBBBII")
_ORIGINS: Final = {2: 4, 3: 6}  # SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6


def parse_extended_error(data: bytes) -> ExtendedError | None:
    """From the ancillary data of a message on the error queue; None where it is cut short."""
    if len(data) < _SOCK_EXTENDED_ERR.size:
        return None
    number, origin, kind, code, _, info, _ = _SOCK_EXTENDED_ERR.unpack_from(data)
    return ExtendedError(number, _ORIGINS.get(origin, 0), kind, code, info)


def parse_offender(data: bytes) -> str:
    """The address of who sent the error: the sockaddr behind the struct; empty where there is none."""
    rest = data[_SOCK_EXTENDED_ERR.size :]
    if len(rest) < 8:
        return ""
    (family,) = struct.unpack_from("=H", rest)  # in the machine's order, unlike all that follows it
    if family == socket.AF_INET:  # sockaddr_in: family, port, address
        return socket.inet_ntop(family, rest[4:8])
    if family == socket.AF_INET6 and len(rest) >= 24:  # sockaddr_in6: family, port, flow, address
        return socket.inet_ntop(family, rest[8:24])
    return ""
