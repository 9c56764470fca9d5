"""Clients that send requests and read no answer, so that the answers stay with the server."""

from __future__ import annotations

from typing import Final

from bothends.attack.attacker import Attacker
from bothends.attack.attacks.base import MIB, Attack

_CONNECTIONS: Final = 40
_MAX_BYTES: Final = 8 * MIB  # from each connection: in all, 320 MiB that a server may have to hold
_CHUNK: Final = 65_536  # bytes


async def readers_not_reading(attacker: Attacker) -> None:
    """Send requests until the server reads no more, and never read."""
    chunk = attacker.request * max(1, _CHUNK // len(attacker.request)) if attacker.request else b"x\n"

    async def member(number: int) -> None:
        while attacker.remaining > 0:
            sock = await attacker.open_session(small_rcvbuf=True)
            sent = 0
            while sock is not None and sent < _MAX_BYTES and await attacker.send(sock, chunk):
                sent += len(chunk)
                await attacker.pause(0.001)
            if sock is not None and sock.fileno() >= 0:
                await attacker.pause(attacker.remaining)
            await attacker.pause(0.1)

    await attacker.crowd(_CONNECTIONS, member)


ATTACK: Final = Attack(
    id="readers-not-reading",
    does=f"{_CONNECTIONS} connections send requests without end and read no answer",
    mistake="blocks in send() while others wait, or holds unsent answers in memory without a limit",
    run=readers_not_reading,
    max_growth=96 * MIB,
)
