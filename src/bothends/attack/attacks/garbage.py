"""Garbage: random bytes, then an end that is a close or a reset."""

from __future__ import annotations

from typing import Final

from bothends.attack.attacker import Attacker
from bothends.attack.attacks.base import Attack

_RATE: Final = 200  # connections a second
_SIZES: Final = (1, 7, 100, 1000, 4096, 20_000)  # bytes


async def garbage(attacker: Attacker) -> None:
    """Send random bytes, in which any length, number or character may occur."""
    async for _ in attacker.paced(_RATE):
        sock = await attacker.open_session()
        if sock is None:
            continue
        data = attacker.random.randbytes(attacker.random.choice(_SIZES))
        if attacker.random.random() < 0.5:
            data = attacker.request[: attacker.random.randrange(len(attacker.request) + 1)] + data + b"\n"
        if not await attacker.send(sock, data):
            continue
        if attacker.random.random() < 0.5:
            attacker.reset(sock)
        else:
            attacker.close(sock)


ATTACK: Final = Attack(
    id="garbage",
    does=f"{_RATE} connections a second with random bytes, alone or after the beginning of a request",
    mistake="expects text, a number or a length to be valid, and ends on an exception",
    run=garbage,
)
