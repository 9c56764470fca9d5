"""The description of an attack: what it does, where it applies, and what it may cost a right server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

from bothends.attack.attacker import Attacker

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One line of the table.

    `does` says what the attacker does, `mistake` what a server that does not hold probably does. `run`
    attacks until the attacker's deadline. `starves` names what the server is deprived of meanwhile, which
    only works on a server that bothends has started: "descriptors" (RLIMIT_NOFILE) or "files" (RLIMIT_FSIZE,
    as on a full disk). `max_growth` is the growth of the server's memory, in bytes, above which it is
    degraded: more than that is sent, so a server without a limit exceeds it.
    """

    id: str
    does: str
    mistake: str
    run: Callable[[Attacker], Awaitable[None]]
    kind: Literal["stream", "datagram"] = "stream"
    starves: Literal["", "descriptors", "files"] = ""
    max_growth: int = 96 * MIB
    inet_only: bool = False
    """It needs TCP: a UNIX socket has no urgent data."""
