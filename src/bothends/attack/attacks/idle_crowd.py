"""An idle crowd: more connections than select() can watch, which send nothing."""

from __future__ import annotations

from typing import Final

from bothends.attack.attacker import Attacker
from bothends.attack.attacks.base import MIB, Attack

_CONNECTIONS: Final = 1100  # above FD_SETSIZE and the usual limit of descriptors, 1,024
_RATE: Final = 1500  # connections a second


async def idle_crowd(attacker: Attacker) -> None:
    """Open connections and leave them alone."""
    async for number in attacker.paced(_RATE):
        if number >= _CONNECTIONS:
            return
        await attacker.open()


ATTACK: Final = Attack(
    id="idle-crowd",
    does=f"{_CONNECTIONS:,} connections that send nothing",
    mistake="has a thread, a process or nothing left for the next client, or uses select() above 1,024",
    run=idle_crowd,
    max_growth=256 * MIB,
)
