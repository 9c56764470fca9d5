"""Out-of-band data: urgent bytes between and inside requests (RFC 6093)."""

from __future__ import annotations

import socket
from typing import Final

from bothends.attack.attacker import Attacker
from bothends.attack.attacks.base import Attack

_RATE: Final = 200  # connections a second
_URGENT: Final = 6  # urgent bytes of a connection


async def out_of_band(attacker: Attacker) -> None:
    """Send requests with urgent bytes in them, and read the answers."""
    async for _ in attacker.paced(_RATE):
        sock = await attacker.open()
        if sock is None:
            continue
        for _ in range(_URGENT):
            cut = attacker.random.randrange(len(attacker.request) + 1)
            sent = await attacker.send(sock, attacker.request[:cut])
            if not sent or not await attacker.send(sock, b"!", socket.MSG_OOB):
                break
            if not attacker.discard_input(sock):
                break
        attacker.close(sock)


ATTACK: Final = Attack(
    id="out-of-band",
    does=f"{_RATE} connections a second with urgent data in and between requests",
    mistake="waits for POLLPRI and never reads the urgent byte, so that its loop spins (poll(2))",
    run=out_of_band,
    inet_only=True,
)
