"""Clients that vanish: their socket is closed before the answer, so that the kernel rejects it (ICMP)."""

from __future__ import annotations

from typing import Final

from bothends.attack.attacker import Attacker
from bothends.attack.attacks.base import Attack

_RATE: Final = 1000  # clients a second


async def datagram_vanishing(attacker: Attacker) -> None:
    """Send a request from a new socket, and close it at once."""
    async for _ in attacker.paced(_RATE):
        sock = await attacker.open()
        if sock is not None:
            await attacker.send(sock, attacker.request)
            attacker.close(sock)


ATTACK: Final = Attack(
    id="datagram-vanishing",
    does=f"{_RATE:,} clients a second send a request and are gone before the answer",
    mistake="ends when a later call reports ECONNREFUSED, or keeps something for each client",
    run=datagram_vanishing,
    kind="datagram",
)
