"""Frames with unfinished checksums and segments, and the resulting packets. No host, no socket."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.checksum import checksum
from bothends.wire import offload
from tests.wire.test_packets import ipv4, ipv6, payloads

ETHERNET = bytes(12) + b"\x08\x00"
TCP, UDP = 6, 17
TCP_KIND = {4: 1, 6: 4}
UDP_KIND = 5
NEEDS_CHECKSUM = 1
FIN, PUSH, CWR, ECE, ACK = 0x01, 0x08, 0x80, 0x40, 0x10


def addresses(packet: bytes) -> bytes:
    return packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]


def with_partial_checksum(packet: bytes, start: int, checksum_offset: int) -> bytes:
    """Put the sum of the pseudo-header into the checksum field, as a kernel does."""
    protocol = TCP if checksum_offset == 16 else UDP
    pseudo = addresses(packet) + struct.pack("!II", len(packet) - start, protocol)
    at = start + checksum_offset
    return packet[:at] + (checksum(pseudo) ^ 0xFFFF).to_bytes(2, "big") + packet[at + 2 :]


def has_valid_checksum(packet: bytes, start: int, protocol: int) -> bool:
    """Return whether the transport checksum is correct."""
    pseudo = addresses(packet) + struct.pack("!II", len(packet) - start, protocol)
    return checksum(pseudo + packet[start:]) == 0


def tcp(data: bytes, *, version: int = 4, flags: int = ACK, options: bytes = b"", sequence: int = 1) -> bytes:
    words = 5 + len(options) // 4
    segment = struct.pack("!HHIIBBHHH", 80, 81, sequence, 7, words << 4, flags, 500, 0, 0) + options + data
    packet = ipv4(segment, protocol=TCP) if version == 4 else ipv6(segment, following=TCP)
    return with_partial_checksum(packet, len(packet) - len(segment), 16)


def udp(data: bytes, *, version: int = 4) -> bytes:
    datagram = struct.pack("!HHHH", 80, 81, 8 + len(data), 0) + data
    packet = ipv4(datagram) if version == 4 else ipv6(datagram)
    return with_partial_checksum(packet, len(packet) - len(datagram), 6)


def frame(
    packet: bytes, *, kind: int = 0, size: int = 0, checksum_offset: int = 16, ethernet: bytes = b""
) -> bytes:
    """Return the frame that a host sends: of TUN, or with an Ethernet header of a veth pair."""
    start = len(ethernet) + (20 if packet[0] >> 4 == 4 else 40)
    return struct.pack("=BBHHHH", NEEDS_CHECKSUM, kind, 54, size, start, checksum_offset) + ethernet + packet


@given(
    data=payloads(1, 5000),
    size=st.integers(100, 1460),
    version=st.sampled_from([4, 6]),
    words=st.integers(0, 10),
    sequence=st.integers(0, 2**32 - 1),
    ethernet=st.sampled_from([b"", ETHERNET]),
)
def test_segment_frame_tcp(
    data: bytes, size: int, version: int, words: int, sequence: int, ethernet: bytes
) -> None:
    flags = ACK | FIN | PUSH | CWR | ECE
    packet = tcp(data, version=version, flags=flags, options=b"\x01" * 4 * words, sequence=sequence)
    head = len(packet) - len(data)
    start = head - 20 - 4 * words
    whole = frame(packet, kind=TCP_KIND[version] | 0x80, size=size, ethernet=ethernet)
    at = offload.HEADER_SIZE + len(ethernet)
    parts = offload.segment_frame(whole, at)
    assert offload.segmented_sizes(whole, at) == (len(parts), sum(map(len, parts)), len(parts[0]))
    again = b""
    for index, part in enumerate(parts):
        is_last = index == len(parts) - 1
        assert head < len(part) <= head + size
        if version == 4:
            length, number = struct.unpack_from("!HH", part, 2)
            assert (length, number) == (len(part), 7 + index)
            assert checksum(part[:start]) == 0
        else:
            assert struct.unpack_from("!H", part, 4) == (len(part) - 40,)
        assert has_valid_checksum(part, start, TCP)
        assert struct.unpack_from("!I", part, start + 4) == ((sequence + len(again)) % 2**32,)
        assert part[start + 13] == ACK | ECE | (0 if index else CWR) | (FIN | PUSH if is_last else 0)
        assert part[start + 20 : head] == b"\x01" * 4 * words
        again += part[head:]
    assert again == data


@given(data=payloads(1, 5000), size=st.integers(1, 1472), version=st.sampled_from([4, 6]))
def test_segment_frame_udp(data: bytes, size: int, version: int) -> None:
    packet = udp(data, version=version)
    start = len(packet) - len(data) - 8
    whole = frame(packet, kind=UDP_KIND, size=size, checksum_offset=6)
    parts = offload.segment_frame(whole, offload.HEADER_SIZE)
    assert offload.segmented_sizes(whole, offload.HEADER_SIZE) == (
        len(parts),
        sum(map(len, parts)),
        len(parts[0]),
    )
    assert [part[start + 8 :] for part in parts] == [data[at : at + size] for at in range(0, len(data), size)]
    for part in parts:
        assert struct.unpack_from("!H", part, start + 4) == (len(part) - start,)
        assert has_valid_checksum(part, start, UDP)


@given(data=payloads(0, 1400), version=st.sampled_from([4, 6]))
def test_segment_frame_completes_checksum(data: bytes, version: int) -> None:
    for packet, place, protocol in (
        (tcp(data, version=version), 16, TCP),
        (udp(data, version=version), 6, UDP),
    ):
        given_over = frame(packet, checksum_offset=place)
        assert not offload.is_complete(given_over)
        assert offload.segmented_sizes(given_over, offload.HEADER_SIZE) == (1, len(packet), len(packet))
        (finished,) = offload.segment_frame(given_over, offload.HEADER_SIZE)
        start = 20 if version == 4 else 40
        assert has_valid_checksum(finished, start, protocol)
        assert finished[: start + place] == packet[: start + place]
        assert finished[start + place : start + place + 2] != b"\0\0" or protocol == TCP


@pytest.mark.parametrize("version", [4, 6])
def test_udp_checksum_that_is_zero_is_sent_as_ones(version: int) -> None:
    """In UDP a checksum of 0 says that there is none (RFC 768)."""
    start = 20 if version == 4 else 40
    (plain,) = offload.segment_frame(
        frame(udp(b"\0\0", version=version), checksum_offset=6), offload.HEADER_SIZE
    )
    # As data, the checksum of the same datagram with zeros makes the sum of all words 0.
    data = plain[start + 6 : start + 8]
    (finished,) = offload.segment_frame(
        frame(udp(data, version=version), checksum_offset=6), offload.HEADER_SIZE
    )
    assert finished[start + 6 : start + 8] == b"\xff\xff"
    segmented = frame(udp(data, version=version), kind=UDP_KIND, size=1400, checksum_offset=6)
    (finished,) = offload.segment_frame(segmented, offload.HEADER_SIZE)
    assert finished[start + 6 : start + 8] == b"\xff\xff"


def test_complete_frame_is_unchanged() -> None:
    packet = ipv4(b"anything")
    plain = offload.NULL_HEADER + packet
    assert offload.is_complete(plain)
    assert offload.segmented_sizes(plain, offload.HEADER_SIZE) == (1, len(packet), len(packet))
    assert offload.segment_frame(plain, offload.HEADER_SIZE) == [packet]
    checked_by_a_card = b"\x02" + bytes(9) + packet  # VIRTIO_NET_HDR_F_DATA_VALID
    assert offload.is_complete(checked_by_a_card)


@given(header=st.binary(min_size=10, max_size=10), rest=st.binary(max_size=100))
@pytest.mark.parametrize("at", [10, 24])
def test_segment_frame_any_header_raises_nothing(at: int, header: bytes, rest: bytes) -> None:
    junk = header + bytes(at - 10) + b"\x45" + rest
    count, size, largest = offload.segmented_sizes(junk, at)
    assert count >= 1
    assert size >= len(junk) - at >= largest
    assert offload.segment_frame(junk, at)
