"""See what programs send in a network namespace of their own, where all packets pass the loopback interface.

A packet socket (packet(7)) sees each packet, even one that no socket receives: so the port that a client
connects to is known before anything listens there, and a reply that is sent to a wrong port is seen.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from bothends.check.subjects.own_network import OwnNetwork

_ETH_P_ALL: Final = 3  # linux/if_ether.h
_PACKET_OUTGOING: Final = 4  # linux/if_packet.h: a packet on loopback is seen as sent, and as received
_IPPROTO: Final = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp"}
_SYN, _ACK = 0x02, 0x10  # RFC 9293, section 3.1
_MAX_HEADERS: Final = 128  # bytes that are read of a packet
_FRAGMENT_OFFSET: Final = 0x1FFF  # RFC 791, section 3.1: a later fragment has no ports


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
                data, address = self._socket.recvfrom(_MAX_HEADERS)
            except BlockingIOError:
                return found
            if address[2] != _PACKET_OUTGOING and (packet := parse_packet(data)) is not None:
                found.append(packet)


def parse_packet(data: bytes) -> SentPacket | None:
    """Return what the headers of an IP packet say, or None if it is not TCP or UDP, or cut off."""
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= 20:
        at, protocol = (data[0] & 0x0F) * 4, data[9]
        source, destination = data[12:16], data[16:20]
        if struct.unpack_from("!H", data, 6)[0] & _FRAGMENT_OFFSET:
            return None
    elif version == 6 and len(data) >= 40:
        at, protocol = 40, data[6]
        source, destination = data[8:24], data[24:40]
    else:
        return None
    if protocol not in _IPPROTO or len(data) < at + (14 if protocol == socket.IPPROTO_TCP else 8):
        return None
    source_port, destination_port = struct.unpack_from("!HH", data, at)
    opens = protocol == socket.IPPROTO_TCP and data[at + 13] & (_SYN | _ACK) == _SYN
    return SentPacket(
        _IPPROTO[protocol],
        str(ipaddress.ip_address(source)),
        source_port,
        str(ipaddress.ip_address(destination)),
        destination_port,
        opens,
    )
