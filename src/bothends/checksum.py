"""The Internet checksum (RFC 1071), which IP, ICMP, TCP and UDP share. Rank 0: a value from bytes."""

from __future__ import annotations


def checksum(data: bytes) -> int:
    """The complement of the one's complement sum of 16-bit words in network order.

    Over what holds its right checksum it is 0. An odd byte at the end counts as if a zero followed.
    """
    if len(data) % 2:
        data += b"\0"
    # One's complement addition is addition modulo 2**16 - 1, and 2**16 is 1 in that arithmetic: so all
    # of it, read as one number with network order, has the same remainder as the sum of its words.
    total = int.from_bytes(data, "big") % 0xFFFF
    # 0 and 0xFFFF are the same there; words that aren't all 0 give 0xFFFF, as their end-around carry would.
    if total == 0 and any(data):
        total = 0xFFFF
    return ~total & 0xFFFF
