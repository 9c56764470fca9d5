"""A full disk: every write to a file fails (RLIMIT_FSIZE), while clients go on."""

from __future__ import annotations

from typing import Final

from bothends.attack.attacker import Attacker
from bothends.attack.attacks.base import Attack

_RATE: Final = 100  # connections a second


async def full_disk(attacker: Attacker) -> None:
    """Send right requests, so that there is something to log or to store."""
    async for _ in attacker.paced(_RATE):
        sock = await attacker.open_session()
        if sock is not None and await attacker.send(sock, attacker.request):
            await attacker.pause(0.002)
            attacker.discard_input(sock)
            attacker.close(sock)


ATTACK: Final = Attack(
    id="full-disk",
    does="every write of the server to a file fails with EFBIG, as with ENOSPC on a full disk",
    mistake="ends, or leaves clients without an answer, because its log can't be written",
    run=full_disk,
    starves="files",
)
