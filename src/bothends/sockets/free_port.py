"""A port for a program that can't be told to let the system pick one."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path
from typing import Final

_FIRST_PORT: Final = 10_240
_MIN_RANGE_END: Final = 20_480  # where the system's own range begins so low, some are of it
_DEFAULT_EPHEMERAL_START: Final = 32_768


def free_port() -> int:
    """A port that is free now, for TCP and UDP at every address.

    It is none of those that the system gives to whoever connects (ip(7), ip_local_port_range): one of these
    may be taken before the program binds it, or be in TIME_WAIT, where only SO_REUSEADDR would help.
    """
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
        first_of_theirs = int(text.split()[0])
    except (OSError, ValueError):
        first_of_theirs = _DEFAULT_EPHEMERAL_START
    while True:
        port = random.SystemRandom().randrange(_FIRST_PORT, max(first_of_theirs, _MIN_RANGE_END))
        with (
            socket.socket() as tcp,
            socket.socket(type=socket.SOCK_DGRAM) as udp,
            contextlib.suppress(OSError),
        ):
            tcp.bind(("", port))
            udp.bind(("", port))
            return port
