"""Half-closes: FIN before, in and after a request; the client reads until the server closes."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

from bothends.attack.attacker import Attacker
from bothends.attack.attacks.base import Attack

_RATE: Final = 150  # connections a second


async def half_closes(attacker: Attacker) -> None:
    """Send nothing, a part or all of a request, and shut down the write side. The server has to close."""
    async for _ in attacker.paced(_RATE):
        sock = await attacker.open_session()
        if sock is None:
            continue
        part = attacker.request[: attacker.random.randrange(len(attacker.request) + 1)]
        if part and not await attacker.send(sock, part):
            continue
        with contextlib.suppress(OSError, NotImplementedError):
            sock.shutdown(socket.SHUT_WR)
        attacker.counts["half-closes"] += 1
        # Left open: a server that closes at EOF has no more to do, another one keeps its descriptor.


ATTACK: Final = Attack(
    id="half-closes",
    does=f"{_RATE} connections a second, half-closed before, in or after a request, and never closed",
    mistake="doesn't close its socket at EOF, or spins on a descriptor that is readable for ever",
    run=half_closes,
)
