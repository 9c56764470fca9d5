"""One-byte writers: right requests, in segments of one byte."""

from __future__ import annotations

from typing import Final

from bothends.attack.attacker import Attacker
from bothends.attack.attacks.base import Attack

_CONNECTIONS: Final = 20
_INTERVAL: Final = 0.005  # seconds between two bytes of a connection: 4,000 segments a second together


async def one_byte_writers(attacker: Attacker) -> None:
    """Send requests byte by byte, and read the answers."""

    async def member(number: int) -> None:
        while attacker.remaining > 0:
            sock = await attacker.open_session()
            if sock is None:
                await attacker.pause(0.05)
                continue
            for byte in attacker.request:
                if not await attacker.send(sock, bytes([byte])) or not attacker.discard_input(sock):
                    break
                await attacker.pause(_INTERVAL)
            attacker.close(sock)

    await attacker.crowd(_CONNECTIONS, member)


ATTACK: Final = Attack(
    id="one-byte-writers",
    does=f"{_CONNECTIONS} connections send right requests in segments of one byte",
    mistake="does much work for each recv(), or takes the bytes of one recv() for a message",
    run=one_byte_writers,
)
