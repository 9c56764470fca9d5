"""See what programs send in a network namespace of their own, where all packets pass the loopback interface.

A packet socket (packet(7)) sees each packet, even one that no socket receives: so the port that a client
connects to is known before anything listens there, and a reply that is sent to a wrong port is seen.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from bothends.check.subjects.own_network import OwnNetwork
from bothends.trace.capture import packets

_ETH_P_ALL: Final = 3  # linux/if_ether.h
_PACKET_OUTGOING: Final = 4  # linux/if_packet.h: a packet on loopback is seen as sent, and as received


@dataclass(frozen=True, slots=True)
class SentPacket:
    """A packet of TCP or UDP: `transport` ("tcp" or "udp"), addresses and ports; `opens`: TCP's first SYN."""

    transport: str
    source: str
    source_port: int
    destination: str
    destination_port: int
    opens: bool = False


class LoopbackCapture:
    """A packet socket in a network namespace. A context manager.

    Raises:
        OSError: the system does not allow it.
    """

    def __init__(self, network: OwnNetwork) -> None:
        with network.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
            try:
                self._socket.bind(("lo", _ETH_P_ALL))
            except OSError:
                self._socket.close()
                raise
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def read(self) -> list[SentPacket]:
        """Return the packets that were sent since the last call, without waiting."""
        found: list[SentPacket] = []
        while True:
            try:
                data, address = self._socket.recvfrom(packets.MAX_HEADER_BYTES)
            except BlockingIOError:
                return found
            if address[2] != _PACKET_OUTGOING and (packet := parse_packet(data)) is not None:
                found.append(packet)


def parse_packet(data: bytes) -> SentPacket | None:
    """Return what the headers of an IP packet say, or None if it is not TCP or UDP, or cut off."""
    packet = packets.parse_packet(data)
    if packet is None:
        return None
    return SentPacket(
        packet.protocol,
        packet.source.host,
        packet.source.port or 0,
        packet.destination.host,
        packet.destination.port or 0,
        "SYN" in packet.flags and "ACK" not in packet.flags,
    )
