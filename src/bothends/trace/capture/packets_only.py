"""Nothing but the packets of one endpoint, whatever programs are at its ends.

Two lanes: the endpoint, and its peers, who are told apart by their ports.
"""

from __future__ import annotations

import socket
from typing import Final

from bothends.endpoints import Endpoint
from bothends.errors import EndpointError, Unavailable
from bothends.trace.model import Packet, Socket, SocketAddress, Trace, TracedProcess

_SCHEMES: Final = frozenset({"tcp", "udp", "tls"})


def addresses_of(endpoint: Endpoint) -> list[SocketAddress]:
    """The addresses of an endpoint.

    Raises:
        EndpointError: it has no port, or its packets are none that are captured.
        Unavailable: its name means nothing.
    """
    if endpoint.scheme not in _SCHEMES or not endpoint.port:
        reason = "only packets of tcp, udp and tls with a port can be told apart from others"
        raise EndpointError(str(endpoint), reason, "UNIX sockets have no packets: trace the programs")
    try:
        found = socket.getaddrinfo(endpoint.host or None, endpoint.port, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise Unavailable("look up", str(endpoint), reason=error.strerror or str(error)) from error
    return list(dict.fromkeys(SocketAddress(str(each[4][0]), int(each[4][1])) for each in found))


class PacketOnlyLanes:
    """Puts each packet of an endpoint between its two lanes."""

    def __init__(self, trace: Trace, endpoint: Endpoint, addresses: list[SocketAddress]) -> None:
        self._addresses = frozenset(addresses)
        self._ports = frozenset(place.port for place in addresses if place.is_wildcard)
        for number, role in ((1, str(endpoint)), (2, "its peers")):
            trace.processes[number] = TracedProcess(number, 0, role)
            trace.sockets[number] = Socket(number, "inet", "stream", process=number)

    def assign_sockets(self, packet: Packet) -> None:
        """Fill in the sockets of a packet."""
        is_from = packet.source in self._addresses or packet.source.port in self._ports
        packet.sender, packet.receiver = (1, 2) if is_from else (2, 1)
