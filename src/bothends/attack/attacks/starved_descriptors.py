"""Descriptors run out: RLIMIT_NOFILE is lowered, and more clients come than it allows."""

from __future__ import annotations

from typing import Final

from bothends.attack.attacker import Attacker
from bothends.attack.attacks.base import Attack

_CONNECTIONS: Final = 60
_HELD: Final = 0.4  # seconds


async def starved_descriptors(attacker: Attacker) -> None:
    """Open more connections than the server has descriptors for, close them, and begin again."""
    while attacker.remaining > 0:
        opened = [await attacker.open() for _ in range(_CONNECTIONS)]
        await attacker.pause(_HELD)
        for sock in opened:
            if sock is not None:
                attacker.close(sock)
        await attacker.pause(_HELD / 4)


ATTACK: Final = Attack(
    id="starved-descriptors",
    does=f"the server may open 8 descriptors more, and {_CONNECTIONS} clients come, again and again",
    mistake="ends when accept() fails with EMFILE, or repeats it at once and uses all of a processor",
    run=starved_descriptors,
    starves="descriptors",
)
