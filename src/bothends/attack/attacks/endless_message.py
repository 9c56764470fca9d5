"""Endless messages: requests that go on for megabytes."""

from __future__ import annotations

from typing import Final

from bothends.attack.attacker import Attacker
from bothends.attack.attacks.base import MIB, Attack

_CONNECTIONS: Final = 4
_MAX_BYTES: Final = 32 * MIB  # from each connection
_CHUNK: Final = b"a" * 16_384
_INTERVAL: Final = 0.0015  # seconds between two chunks of a connection: about 40 MiB/s together


async def endless_message(attacker: Attacker) -> None:
    """Send a beginning, then bytes that don't end the message, and read what comes."""

    async def member(number: int) -> None:
        while attacker.remaining > 0:
            sock = await attacker.open_session()
            sent = 0
            while sock is not None and sent < _MAX_BYTES and await attacker.send(sock, _CHUNK):
                sent += len(_CHUNK)
                if not attacker.discard_input(sock):
                    break
                await attacker.pause(_INTERVAL)
            if sock is not None and sock.fileno() >= 0:
                await attacker.hold(sock)
            await attacker.pause(0.05)

    await attacker.crowd(_CONNECTIONS, member)


ATTACK: Final = Attack(
    id="endless-message",
    does=f"{_CONNECTIONS} connections send one message each that never ends",
    mistake="collects a message in memory without a limit on its length",
    run=endless_message,
    max_growth=48 * MIB,
)
