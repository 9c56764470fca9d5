"""ICMP as bytes: building, parsing, and arbitrary input."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.checksum import checksum
from bothends.client import icmp
from bothends.client.icmp import IcmpEcho

UINT16 = st.integers(0, 0xFFFF)
ECHOES = st.builds(IcmpEcho, UINT16, UINT16, st.binary(max_size=200))
VERSIONS = st.sampled_from([4, 6])


def reference_checksum(data: bytes) -> int:
    """Compute the checksum of RFC 1071 section 1 word by word, with the end-around carry."""
    total = 0
    for offset in range(0, len(data), 2):
        total += int.from_bytes(data[offset : offset + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def test_checksum_matches_rfc_1071_example() -> None:
    assert checksum(bytes.fromhex("0001 f203 f4f5 f6f7")) == 0x220D  # RFC 1071 section 3: the sum is ddf2


@given(st.binary(max_size=300))
def test_checksum_matches_reference(data: bytes) -> None:
    assert checksum(data) == reference_checksum(data)


@pytest.mark.parametrize("data", [b"", bytes(2), bytes(9), b"\xff\xff", b"\xff\xff" * 3, b"\xff\xfe\x00\x01"])
def test_checksum_zero_representations(data: bytes) -> None:
    assert checksum(data) == reference_checksum(data)


@given(ECHOES)
def test_request_with_checksum_sums_to_zero(echo: IcmpEcho) -> None:
    assert checksum(icmp.build_request(4, echo)) == 0


def test_build_request_bytes() -> None:
    message = icmp.build_request(4, IcmpEcho(0x1234, 1, b"hello123"))
    assert message == bytes.fromhex("08 00 6f94 1234 0001") + b"hello123"
    assert icmp.build_request(6, IcmpEcho(0x1234, 1, b"")) == bytes.fromhex("80 00 0000 1234 0001")


@given(VERSIONS, ECHOES)
def test_build_and_parse_round_trip(version: int, echo: IcmpEcho) -> None:
    assert icmp.parse_request(version, icmp.build_request(version, echo)) == echo
    assert icmp.parse_reply(version, icmp.build_reply(version, echo)) == echo
    assert icmp.parse_reply(version, icmp.build_request(version, echo)) is None


@given(VERSIONS, st.binary(max_size=64))
def test_parse_arbitrary_bytes_never_raises(version: int, data: bytes) -> None:
    for parse in (icmp.parse_reply, icmp.parse_request):
        echo = parse(version, data)
        assert echo is None or echo.payload == data[8:]
    icmp.strip_ip_header(data)
    icmp.parse_extended_error(data)
    icmp.parse_offender(data)


@given(st.binary(max_size=40), st.integers(0, 40))
def test_strip_ip_header_with_options(message: bytes, options: int) -> None:
    length = 20 + options // 4 * 4
    packet = bytes([0x40 | length // 4]).ljust(length, b"\0") + message
    assert icmp.strip_ip_header(packet) == message


@pytest.mark.parametrize("packet", ["", "60" + "00" * 40, "44" + "00" * 40, "4f" + "00" * 40, "45"])
def test_strip_ip_header_invalid_packet_returns_none(packet: str) -> None:
    assert icmp.strip_ip_header(bytes.fromhex(packet)) is None


@given(st.integers(1, 10**9), st.integers(0, 0xFFFF))
def test_unwrap_sequence_recovers_recent_numbers(last_number: int, back: int) -> None:
    assert icmp.unwrap_sequence((last_number - back) % 65536, last_number) == last_number - back


@pytest.mark.parametrize("version", [4, 6])
def test_reply_filter_passes_only_echo_replies(version: int) -> None:
    filter_words = struct.unpack("=I" if version == 4 else "=8I", icmp.reply_filter(version))
    passing = [
        kind for kind in range(32 * len(filter_words)) if not filter_words[kind // 32] >> kind % 32 & 1
    ]
    assert passing == [icmp.REPLY[version]]


@pytest.mark.parametrize(
    ("version", "kind", "code", "info", "text"),
    [
        (4, 3, 1, 0, "destination unreachable: the last router cannot reach the host"),
        (4, 3, 4, 1400, "and fragmentation is not allowed; its MTU is 1400 bytes"),
        (4, 11, 0, 0, "time exceeded: the hop limit was exceeded in transit"),
        (4, 3, 77, 0, "destination unreachable, code 77"),
        (4, 99, 1, 0, "ICMP type 99, code 1"),
        (6, 1, 4, 0, "destination unreachable: no socket is bound to the port"),
        (6, 2, 0, 1280, "too large for a link on the path; its MTU is 1280 bytes"),
        (6, 3, 0, 0, "time exceeded: the hop limit was exceeded in transit"),
    ],
)
def test_describe_error_text(version: int, kind: int, code: int, info: int, text: str) -> None:
    assert icmp.describe_error(version, kind, code, info).endswith(text)


def test_parse_extended_error_and_offender_ipv4() -> None:
    # As Linux reports it for a datagram to a closed port; the address family is in host byte order.
    ancillary = struct.pack("=IBBBBII", 111, 2, 3, 3, 0, 0, 0) + struct.pack("=H", socket.AF_INET)
    ancillary += bytes.fromhex("0000 7f000001 0000000000000000")
    error = icmp.parse_extended_error(ancillary)
    assert error == icmp.ExtendedError(111, 4, 3, 3, 0)
    assert error.description == "destination unreachable: no socket is bound to the port"
    assert icmp.parse_offender(ancillary) == "127.0.0.1"


def test_parse_extended_error_and_offender_ipv6() -> None:
    ancillary = struct.pack("=IBBBBII", 111, 3, 1, 4, 0, 0, 0) + struct.pack("=H", socket.AF_INET6)
    ancillary += bytes(6) + socket.inet_pton(socket.AF_INET6, "::1") + bytes(4)
    error = icmp.parse_extended_error(ancillary)
    assert error is not None
    assert (error.version, icmp.parse_offender(ancillary)) == (6, "::1")


def test_local_extended_error_has_no_description() -> None:
    error = icmp.parse_extended_error(struct.pack("=IBBBBII", 90, 1, 0, 0, 0, 65535, 0))
    assert error is not None
    assert (error.version, error.description, error.errno) == (0, "", 90)
