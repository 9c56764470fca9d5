"""IP packets as bytes: fragments, and ICMP errors. No host, no socket."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.checksum import checksum
from bothends.wire import packets
from bothends.wire.plan import ROUTER_ADDRESSES

ONE, OTHER = ipaddress.ip_address("10.0.0.1").packed, ipaddress.ip_address("10.0.0.2").packed
ONE6, OTHER6 = ipaddress.ip_address("fd00::1").packed, ipaddress.ip_address("fd00::2").packed


def ipv4(payload: bytes, *, protocol: int = 17, flags: int = 0, options: bytes = b"") -> bytes:
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, words * 4 + len(payload), 7, flags, 64, protocol, 0)
    head += ONE + OTHER + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(payload: bytes, *, following: int = 17, to: bytes = OTHER6) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(payload), following, 64) + ONE6 + to + payload


def payloads(smallest: int, largest: int) -> st.SearchStrategy[bytes]:
    """Payloads of any size: `binary` rarely makes one that is larger than an MTU."""
    pattern = bytes(number * 7 % 251 for number in range(largest))
    return st.integers(smallest, largest).map(lambda size: pattern[:size]) | st.binary(
        min_size=smallest, max_size=100
    )


@given(payload=payloads(0, 5000), mtu=st.integers(68, 1500), words=st.integers(0, 10))
def test_fragments_reassemble_to_packet(payload: bytes, mtu: int, words: int) -> None:
    packet = ipv4(payload, options=b"\x01" * 4 * words)
    head = len(packet) - len(payload)
    parts = packets.fragments(packet, mtu)
    assert parts is not None
    again = bytearray()
    for index, part in enumerate(parts):
        length, _, flags = struct.unpack_from("!HHH", part, 2)
        assert length == len(part) <= mtu
        assert checksum(part[:head]) == 0
        assert (flags & 0x1FFF) * 8 == len(again)
        assert bool(flags & 0x2000) == (index < len(parts) - 1)
        again += part[head:]
    assert bytes(again) == payload


def test_fragments_of_fragment_keep_offset() -> None:
    (first, second) = packets.fragments(ipv4(bytes(1400)), 1000) or []
    parts = packets.fragments(first, 500) or []
    ends = [struct.unpack_from("!H", part, 6)[0] for part in parts]
    assert all(end & 0x2000 for end in ends)  # more fragments: at least the second one
    assert [end & 0x1FFF for end in ends] == [0, 60, 120]
    assert (packets.fragments(second, 300) or [])[0][6:8] == second[6:8].replace(b"\x00", b"\x20", 1)


def test_fragments_dont_fragment_and_ipv6_return_none() -> None:
    assert packets.fragments(ipv4(bytes(1400), flags=0x4000), 1000) is None
    assert packets.fragments(ipv6(bytes(1400)), 1000) is None


def test_packet_too_big_ipv4_reports_mtu_and_quotes_packet() -> None:
    packet = ipv4(bytes(range(200)) * 7, flags=0x4000)
    answer = packets.packet_too_big(packet, 1300, ROUTER_ADDRESSES)
    assert answer is not None
    assert (packets.source_of(answer), packets.destination_of(answer)) == (ROUTER_ADDRESSES[0].packed, ONE)
    assert struct.unpack_from("!BB", answer, 20) == (3, 4)
    assert struct.unpack_from("!HH", answer, 24) == (0, 1300)  # RFC 1191 section 4
    assert packet.startswith(answer[28:])
    assert len(answer) == struct.unpack_from("!H", answer, 2)[0] <= 576
    assert checksum(answer[:20]) == checksum(answer[20:]) == 0


def test_packet_too_big_ipv6() -> None:
    packet = ipv6(bytes(1400))
    answer = packets.packet_too_big(packet, 1300, ROUTER_ADDRESSES)
    assert answer is not None
    assert (packets.source_of(answer), packets.destination_of(answer)) == (ROUTER_ADDRESSES[1].packed, ONE6)
    assert struct.unpack_from("!BBHI", answer, 40)[::3] == (2, 1300)
    assert len(answer) == 1280
    assert checksum(answer[8:40] + struct.pack("!II", len(answer) - 40, 58) + answer[40:]) == 0


@pytest.mark.parametrize(
    ("packet", "kind", "code"), [(ipv4(bytes(20)), 3, 1), (ipv6(bytes(20)), 1, 3)], ids=["IPv4", "IPv6"]
)
def test_destination_unreachable(packet: bytes, kind: int, code: int) -> None:
    answer = packets.destination_unreachable(packet, ROUTER_ADDRESSES)
    assert answer is not None
    assert tuple(answer[len(answer) - len(packet) - 8 :][:2]) == (kind, code)
    assert answer.endswith(packet)


@pytest.mark.parametrize(
    "packet",
    [
        ipv4(bytes([3, 1]) + bytes(30), protocol=1),  # an ICMP error
        ipv4(bytes(30), flags=5),  # not the first fragment
        ipv4(bytes(30))[:16] + bytes([224, 0, 0, 1]) + bytes(30),  # to a multicast group
        ipv4(bytes(30))[:12] + bytes(4) + OTHER + bytes(30),  # from an unspecified address
        ipv6(bytes([1, 0]) + bytes(30), following=58),
        ipv6(bytes(30), to=b"\xff\x02" + bytes(14)),
    ],
)
def test_no_icmp_error_about_errors_groups_and_fragments(packet: bytes) -> None:
    assert packets.destination_unreachable(packet, ROUTER_ADDRESSES) is None


def test_icmp_error_about_echo_request_is_sent() -> None:
    assert (
        packets.destination_unreachable(ipv4(bytes([8, 0]) + bytes(6), protocol=1), ROUTER_ADDRESSES)
        is not None
    )
    assert (
        packets.destination_unreachable(ipv6(bytes([128, 0]) + bytes(6), following=58), ROUTER_ADDRESSES)
        is not None
    )


def test_is_link_control() -> None:
    membership = bytes([58, 0, 5, 2, 0, 0, 1, 0]) + bytes([143]) + bytes(20)  # after a router alert
    assert packets.is_link_control(ipv6(membership, following=0))
    kinds = {
        kind for kind in range(256) if packets.is_link_control(ipv6(bytes([kind, *[0] * 7]), following=58))
    }
    assert kinds == {*range(130, 138), 143}  # RFC 2710 (MLD), 4861 (discovery), 3810 (MLDv2)
    assert packets.is_link_control(ipv4(bytes(8), protocol=2))
    assert not packets.is_link_control(ipv6(bytes([128]) + bytes(7), following=58))
    assert not packets.is_link_control(ipv6(bytes(8)))
    assert not packets.is_link_control(ipv4(bytes([133]) + bytes(7)))


@given(st.binary(max_size=80))
def test_packets_any_bytes_raise_nothing(data: bytes) -> None:
    if packets.version_of(data):
        packets.is_link_control(data)
        packets.fragments(data, 68)
        packets.packet_too_big(data, 1300, ROUTER_ADDRESSES)
        packets.destination_unreachable(data, ROUTER_ADDRESSES)
        packets.is_multicast_or_broadcast(packets.destination_of(data))
    else:
        assert len(data) < 20 or data[0] >> 4 not in (4, 6) or len(data) < 40
