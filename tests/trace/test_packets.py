"""`trace/capture/packets.py`: parsing of IP packets, and the capture of those on the loopback interface."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time

import pytest

from bothends.trace.capture.packets import Capture, RawPacket, parse_packet
from bothends.trace.model import DATA_LIMIT

UDP = struct.pack("!HHHH", 5000, 6000, 8 + 5, 0) + b"hello"
TCP = struct.pack("!HHIIBBHHH", 5000, 6000, 1, 2, 5 << 4, 0x18, 512, 0, 0)
SOURCE6, DESTINATION6 = (socket.inet_pton(socket.AF_INET6, each) for each in ("2001:db8::1", "2001:db8::2"))


def ipv4(payload: bytes, *, protocol: int = 17, fragment: int = 0) -> bytes:
    """Return a packet. `fragment`: the offset of the payload, in units of 8 bytes."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, fragment, 64, protocol, 0)
    return head + bytes([192, 0, 2, 1, 192, 0, 2, 2]) + payload


def ipv6(payload: bytes, following: int) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(payload), following, 64) + SOURCE6 + DESTINATION6 + payload


def test_later_fragment_is_none() -> None:
    assert parse_packet(ipv4(UDP)) is not None
    assert parse_packet(ipv4(UDP, fragment=100)) is None


@pytest.mark.parametrize("words", [0, 2])
def test_ports_after_an_extension_header(words: int) -> None:
    """`words`: the header's length beyond 8 bytes, in units of 8 bytes (RFC 8200, section 4)."""
    options = struct.pack("!BB", 17, words) + bytes(6 + 8 * words)
    packet = parse_packet(ipv6(options + UDP, 60))
    assert packet is not None
    assert (packet.source.port, packet.destination.port, packet.data) == (5000, 6000, b"hello")


def test_size_is_that_of_the_whole_segment() -> None:
    raw = ipv4(TCP + bytes(60_000), protocol=6)
    packet = parse_packet(raw[: DATA_LIMIT + 40])
    assert packet is not None
    assert (packet.size, len(packet.data), packet.length) == (60_000, DATA_LIMIT, 60_040)


def captured(capture: Capture, port: int) -> list[RawPacket]:
    """Return the packets to a port that have arrived. Waits for the first one."""
    found: list[RawPacket] = []
    until = time.monotonic() + 10
    while not found and time.monotonic() < until:
        select.select([capture], [], [], 1.0)
        found += [each for each in capture.read() if each.ports and each.ports[1] == port]
    return found + [each for each in capture.read() if each.ports and each.ports[1] == port]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can capture packets")
def test_first_packet_on_loopback_is_captured_once_with_the_time_of_its_sending() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        address = receiver.getsockname()
        for _ in range(10):  # the kernel begins to take the time soon after a capture begins
            with Capture() as capture:
                receiver.sendto(b"x", address)
                sent_at = time.time_ns()
                threading.Event().wait(0.005)
                assert [each.at < sent_at for each in captured(capture, address[1])] == [True]
