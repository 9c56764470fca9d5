"""Trace the packets of one endpoint, without tracing programs.

The picture has two lanes: the endpoint, and all of its peers, which differ in their ports.
"""

from __future__ import annotations

import socket
from typing import Final

from bothends.endpoints import Endpoint
from bothends.errors import EndpointError, Unavailable
from bothends.trace.model import Packet, Socket, SocketAddress, Trace, TracedProcess

_SCHEMES: Final = frozenset({"tcp", "udp", "tls"})


def addresses_of(endpoint: Endpoint) -> list[SocketAddress]:
    """Resolve the addresses of an endpoint.

    Raises:
        EndpointError: it has no port, or a scheme whose packets are not captured.
        Unavailable: the host name cannot be resolved.
    """
    if endpoint.scheme not in _SCHEMES or not endpoint.port:
        reason = "only packets of tcp, udp and tls endpoints with a port can be captured"
        raise EndpointError(str(endpoint), reason, "UNIX sockets have no packets: trace the programs")
    try:
        found = socket.getaddrinfo(endpoint.host or None, endpoint.port, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise Unavailable("look up", str(endpoint), reason=error.strerror or str(error)) from error
    return list(dict.fromkeys(SocketAddress(str(each[4][0]), int(each[4][1])) for each in found))


class PacketOnlyLanes:
    """Assigns each packet of an endpoint to the two lanes."""

    def __init__(self, trace: Trace, endpoint: Endpoint, addresses: list[SocketAddress]) -> None:
        self._addresses = frozenset(addresses)
        self._ports = frozenset(each.port for each in addresses if each.is_wildcard)
        for number, role in ((1, str(endpoint)), (2, "its peers")):
            trace.processes[number] = TracedProcess(number, 0, role)
            trace.sockets[number] = Socket(number, "inet", "stream", process=number)

    def assign_sockets(self, packet: Packet) -> None:
        """Set the sender and the receiver of a packet."""
        is_from = packet.source in self._addresses or packet.source.port in self._ports
        packet.sender, packet.receiver = (1, 2) if is_from else (2, 1)
