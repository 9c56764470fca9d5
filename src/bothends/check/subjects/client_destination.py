"""Find out where a client connects: it is started once in a network namespace in which nothing listens.

Its first packet names the port and the address, wherever they come from: the command line, or its source.
The connection is refused at once, as from a server that does not run.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from bothends.check.case import NotListening
from bothends.check.evidence import find_cause
from bothends.check.subjects.loopback_capture import LoopbackCapture, SentPacket
from bothends.check.subjects.process import ProgramProcess

_POLL_INTERVAL: Final = 0.01  # seconds
_MORE_ADDRESSES: Final = 0.1  # seconds after the first packet, in which a client tries its next address
_DNS: Final = 53  # a name server's port, which a client may ask before it knows its server's address


@dataclass(frozen=True, slots=True)
class ClientDestination:
    """Where a client connects, or sends its datagrams to: a port, and the first address.

    `needs_ipv6`: it tries an IPv6 address, too.
    """

    host: str
    port: int
    needs_ipv6: bool


async def find_destination(
    program: ProgramProcess, capture: LoopbackCapture, transport: str, timeout: float
) -> ClientDestination:
    """Return the destination of a client that has just been started.

    Raises:
        NotListening: it exits, or sends nothing within `timeout` seconds, or uses another transport.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    sent: list[SentPacket] = []
    while True:
        exited = not program.running
        sent += capture.read()
        found = [each for each in sent if _is_first_packet(each, transport)]
        if found:
            await asyncio.sleep(_MORE_ADDRESSES)
            found += [each for each in capture.read() if _is_first_packet(each, transport)]
            port = found[0].destination_port
            return ClientDestination(
                found[0].destination, port, any(":" in each.destination for each in found)
            )
        # A client that sleeps after a third of the time is not starting up any more.
        if (
            exited
            or loop.time() > deadline
            or (loop.time() > deadline - timeout * 2 / 3 and program.is_idle())
        ):
            raise await _describe_failure(program, sent, transport)
        await asyncio.sleep(_POLL_INTERVAL)


def _is_first_packet(packet: SentPacket, transport: str) -> bool:
    if packet.transport != transport:
        return False
    return packet.opens if transport == "tcp" else packet.destination_port != _DNS


async def _describe_failure(program: ProgramProcess, sent: list[SentPacket], transport: str) -> NotListening:
    verb = "connect to a TCP port" if transport == "tcp" else "send a UDP datagram"
    consequence = f"the client does not {'connect' if transport == 'tcp' else 'send a datagram'}"
    other = next(
        (each for each in sent if each.transport != transport and each.destination_port != _DNS), None
    )
    ending = ""
    if not program.running:
        await program.stderr.wait_eof(0.5)
        ending = f", and exits ({program.exit_description})"
    cause = "waits for more input, or never reaches its connect() or sendto()"
    if other is not None:
        cause = f"uses {other.transport.upper()} (port {other.destination_port}), not {transport.upper()}"
    elif found := find_cause(program.stderr.data)[1]:
        cause = found
    elif ending:
        cause = "ends before it connects" if transport == "tcp" else "ends before it sends a datagram"
    return NotListening(
        f"the client does not {verb}{ending}", program.stderr_tail, exited=bool(ending), cause=cause,
        expected=f"a client that can {verb}", consequence=consequence,
    )  # fmt: skip
