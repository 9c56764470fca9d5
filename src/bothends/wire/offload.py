"""Finish packets that a host's kernel leaves to its network card: segmentation and checksums. Pure.

    frame: virtio_net_hdr (10 bytes) ── Ethernet header, on a veth pair ── IP packet, up to 64 KiB

1. A kernel with segmentation offload hands over up to 64 KiB of a stream at a time, at a tenth of the cost.
   The header (linux/virtio_net.h) describes the remaining work.
2. A receiver of such a frame that passes it on to another host may leave the work undone: the header tells
   that host's kernel that the packet has not been on a cable.
3. Toxics and observers, however, must see packets as they would be on a cable: none larger than the MTU, each
   with its checksum. `segment_frame` makes them, as net/ipv4/tcp_offload.c does.
"""

from __future__ import annotations

import struct
from typing import Final

from bothends.checksum import checksum

HEADER_SIZE: Final = 10
"""Bytes of the header."""

NULL_HEADER: Final = bytes(HEADER_SIZE)
"""The header of a complete packet."""

# flags, segmentation type, hint, payload bytes per segment, start of the checksummed bytes, offset of the
# checksum in them; in host byte order, offsets counted from the end of this header
_HEADER: Final = struct.Struct("=BBHHHH")
_NEEDS_CHECKSUM: Final = 0x01
_WITH_ECN: Final = 0x80
_TCP_KINDS: Final = frozenset({1, 4})  # over IPv4, over IPv6
_UDP_KIND: Final = 5
_TCP, _UDP = 6, 17
_FIN, _PUSH, _CWR = 0x01, 0x08, 0x80


def is_complete(frame: bytes) -> bool:
    """Return whether the frame needs neither a checksum nor segmentation."""
    return not (frame[0] & _NEEDS_CHECKSUM or frame[1])


def segmented_sizes(frame: bytes, ip_offset: int) -> tuple[int, int, int]:
    """Return the sizes that a frame would have on a cable, without segmenting it.

    Args:
        frame: a frame with its header.
        ip_offset: where its IP packet begins.

    Returns:
        The number of packets, their total size and the size of the largest, in bytes.
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
    """Return a frame's complete IP packets, each with its checksum. Its IP packet begins at `ip_offset`."""
    if is_complete(frame):
        return [frame[ip_offset:]]
    flags, kind, _, segment, start, checksum_offset = _HEADER.unpack_from(frame)
    packet, start = frame[ip_offset:], start + HEADER_SIZE - ip_offset
    head = _payload_offset(kind, packet, start)
    if 20 <= start < head < len(packet) and segment:
        return _segment(packet, start, head, segment)
    if flags & _NEEDS_CHECKSUM and start >= 20 and start + checksum_offset + 2 <= len(packet):
        return [_finish_checksum(packet, start, checksum_offset)]
    return [packet]


def _payload_offset(kind: int, packet: bytes, start: int) -> int:
    """Return the offset of the TCP or UDP payload. The header begins at `start`. 0 for other protocols."""
    kind &= ~_WITH_ECN
    if kind in _TCP_KINDS and start + 20 <= len(packet):
        return start + max(20, (packet[start + 12] >> 4) * 4)
    return start + 8 if kind == _UDP_KIND else 0


def _finish_checksum(packet: bytes, start: int, checksum_offset: int) -> bytes:
    """Return the packet with its checksum. Its checksum field contains the sum of the pseudo-header."""
    value = checksum(packet[start:])
    if not value and checksum_offset == 6:
        value = 0xFFFF  # in UDP, 0 means "no checksum" (RFC 768)
    at = start + checksum_offset
    return packet[:at] + value.to_bytes(2, "big") + packet[at + 2 :]


def _segment(packet: bytes, start: int, head: int, size: int) -> list[bytes]:
    packets = []
    for index, at in enumerate(range(head, len(packet), size)):
        data = packet[at : at + size]
        header = bytearray(packet[:head])
        length = head - start + len(data)
        if header[0] >> 4 == 4:
            addresses = packet[12:20]
            identification = int.from_bytes(packet[4:6], "big") + index & 0xFFFF
            struct.pack_into("!HH", header, 2, start + length, identification)
            struct.pack_into("!H", header, 10, 0)
            struct.pack_into("!H", header, 10, checksum(bytes(header[:start])))
        else:
            addresses = packet[8:40]
            struct.pack_into("!H", header, 4, start - 40 + length)
        if head - start == 8:
            protocol, checksum_offset = _UDP, 6
            struct.pack_into("!H", header, start + 4, length)
        else:
            protocol, checksum_offset = _TCP, 16
            (sequence,) = struct.unpack_from("!I", packet, start + 4)
            struct.pack_into("!I", header, start + 4, sequence + at - head & 0xFFFFFFFF)
            # FIN and PSH belong to the last segment, CWR (RFC 3168 section 6.1.2) to the first.
            header[start + 13] &= ~((_CWR if index else 0) | (_FIN | _PUSH if at + size < len(packet) else 0))
        struct.pack_into("!H", header, start + checksum_offset, 0)
        pseudo = addresses + struct.pack("!II", length, protocol)
        struct.pack_into(
            "!H", header, start + checksum_offset, checksum(pseudo + header[start:] + data) or 0xFFFF
        )
        packets.append(bytes(header) + data)
    return packets
