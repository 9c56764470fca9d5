"""The Internet checksum (RFC 1071) of IP, ICMP, TCP and UDP. Rank 0, pure."""

from __future__ import annotations


def checksum(data: bytes) -> int:
    """Return the complement of the one's complement sum of 16-bit words in network byte order.

    It is 0 for data that contains its correct checksum. Data of odd length is padded with a zero byte.
    """
    if len(data) % 2:
        data += b"\0"
    # One's complement addition is addition modulo 2**16 - 1, where 2**16 equals 1. So the data, read as one
    # big-endian number, has the same remainder as the sum of its words.
    total = int.from_bytes(data, "big") % 0xFFFF
    # 0 and 0xFFFF are equal in that arithmetic. Words that are not all 0 sum to 0xFFFF by end-around carry.
    if total == 0 and any(data):
        total = 0xFFFF
    return ~total & 0xFFFF
