"""Resets in storms: at once, in the middle of a request, and before the reply."""

from __future__ import annotations

from typing import Final

from bothends.attack.attacker import Attacker
from bothends.attack.attacks.base import Attack

_RATE: Final = 400  # connections a second


async def reset_storm(attacker: Attacker) -> None:
    """Connect, send nothing, a part or all of a request, and reset."""
    async for _ in attacker.paced(_RATE):
        sock = await attacker.open()
        if sock is None:
            continue
        part = attacker.random.choice([0, attacker.random.randrange(len(attacker.request) + 1), 1 << 20])
        if part and not await attacker.send(sock, attacker.request[:part]):
            continue
        if attacker.random.random() < 0.3:
            await attacker.pause(attacker.random.random() * 0.01)
        attacker.reset(sock)


ATTACK: Final = Attack(
    id="reset-storm",
    does=f"{_RATE} connections a second, reset before, in or after a request",
    mistake="doesn't expect ECONNRESET or EPIPE, or keeps the descriptor of a connection that failed",
    run=reset_storm,
)
