"""What a host's kernel would leave to its network card: to cut data into packets, and to sum checksums. Pure.

    frame: virtio_net_hdr (10 bytes) ── Ethernet header, on a veth pair ── IP packet, perhaps of 64 KiB

1. A kernel that may leave both to somebody hands over a stream by up to 64 KiB at a time (segmentation
   offload), which costs it a tenth. The header, of linux/virtio_net.h, says what is still to be done.
2. Who takes in such a frame for another host may leave all of it undone: that host's kernel knows that
   nothing has been on a cable.
3. But a toxic, and whoever looks, must meet packets as they would be on a cable: none larger than the MTU,
   each with its checksum. `packets_of` makes them, as net/ipv4/tcp_offload.c does.
"""

from __future__ import annotations

import struct
from typing import Final

from bothends.checksum import checksum

HEADER_SIZE: Final = 10
"""Bytes of the header."""

NULL_HEADER: Final = bytes(HEADER_SIZE)
"""The header of a packet with which nothing is to be done."""

# flags, kind of segmentation, hint, data bytes a segment, where the checksum's bytes begin, its place there;
# in the machine's own order, and counted from behind this header
_HEADER: Final = struct.Struct("=BBHHHH")
_NEEDS_CHECKSUM: Final = 0x01
_WITH_ECN: Final = 0x80
_TCP_KINDS: Final = frozenset({1, 4})  # over IPv4, over IPv6
_UDP_KIND: Final = 5
_TCP, _UDP = 6, 17
_FIN, _PUSH, _CWR = 0x01, 0x08, 0x80


def is_complete(frame: bytes) -> bool:
    """Whether nothing is to be done with what follows the header."""
    return not (frame[0] & _NEEDS_CHECKSUM or frame[1])


def segmented_sizes(frame: bytes, ip_offset: int) -> tuple[int, int, int]:
    """How many packets a frame is on a cable, their bytes together, and those of the largest.

    Its IP packet begins at `at`.
    """
    size = len(frame) - ip_offset
    if not frame[1]:
        return 1, size, size
    _, kind, _, segment, start, _ = _HEADER.unpack_from(frame)
    head = _payload_offset(kind, frame, start + HEADER_SIZE) - ip_offset
    if not 0 < head < size or not segment:
        return 1, size, size
    count = -((head - size) // segment)
    return count, size + (count - 1) * head, min(size, head + segment)


def segment_frame(frame: bytes, ip_offset: int) -> list[bytes]:
    """The packets that a frame is on a cable; its IP packet begins at `at`."""
    if is_complete(frame):
        return [frame[ip_offset:]]
    flags, kind, _, segment, start, place = _HEADER.unpack_from(frame)
    packet, start = frame[ip_offset:], start + HEADER_SIZE - ip_offset
    head = _payload_offset(kind, packet, start)
    if 20 <= start < head < len(packet) and segment:
        return _segment(packet, start, head, segment)
    if flags & _NEEDS_CHECKSUM and start >= 20 and start + place + 2 <= len(packet):
        return [_finish_checksum(packet, start, place)]
    return [packet]


def _payload_offset(kind: int, packet: bytes, start: int) -> int:
    """Where the data of a TCP or UDP packet begins, whose header begins at `start`; 0 for others."""
    kind &= ~_WITH_ECN
    if kind in _TCP_KINDS and start + 20 <= len(packet):
        return start + max(20, (packet[start + 12] >> 4) * 4)
    return start + 8 if kind == _UDP_KIND else 0


def _finish_checksum(packet: bytes, start: int, checksum_offset: int) -> bytes:
    """With its checksum, in whose place is the sum of the pseudo-header so far."""
    summed = checksum(packet[start:])
    if not summed and checksum_offset == 6:
        summed = 0xFFFF  # UDP says by 0 that there is none (RFC 768)
    at = start + checksum_offset
    return packet[:at] + summed.to_bytes(2, "big") + packet[at + 2 :]


def _segment(packet: bytes, start: int, head: int, size: int) -> list[bytes]:
    parts = []
    for index, at in enumerate(range(head, len(packet), size)):
        data = packet[at : at + size]
        made = bytearray(packet[:head])
        length = head - start + len(data)
        if made[0] >> 4 == 4:
            addresses = packet[12:20]
            identification = int.from_bytes(packet[4:6], "big") + index & 0xFFFF
            struct.pack_into("!HH", made, 2, start + length, identification)
            struct.pack_into("!H", made, 10, 0)
            struct.pack_into("!H", made, 10, checksum(bytes(made[:start])))
        else:
            addresses = packet[8:40]
            struct.pack_into("!H", made, 4, start - 40 + length)
        if head - start == 8:
            protocol, place = _UDP, 6
            struct.pack_into("!H", made, start + 4, length)
        else:
            protocol, place = _TCP, 16
            (sequence,) = struct.unpack_from("!I", packet, start + 4)
            struct.pack_into("!I", made, start + 4, sequence + at - head & 0xFFFFFFFF)
            # The end comes with the last one; that congestion has been heard of (RFC 3168) with the first.
            made[start + 13] &= ~((_CWR if index else 0) | (_FIN | _PUSH if at + size < len(packet) else 0))
        struct.pack_into("!H", made, start + place, 0)
        pseudo = addresses + struct.pack("!II", length, protocol)
        struct.pack_into("!H", made, start + place, checksum(pseudo + made[start:] + data) or 0xFFFF)
        parts.append(bytes(made) + data)
    return parts
