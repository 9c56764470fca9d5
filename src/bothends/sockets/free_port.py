"""Find a free port for programs that cannot bind port 0 and report the result."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path
from typing import Final

_FIRST_PORT: Final = 10_240
_MIN_RANGE_END: Final = 20_480  # if the ephemeral range starts below this, the two ranges overlap
_DEFAULT_EPHEMERAL_START: Final = 32_768


def free_port() -> int:
    """Return a port that is free now, for TCP and UDP on every address.

    It is outside the ephemeral range (ip(7), ip_local_port_range), because the kernel could assign an
    ephemeral port to a connection before the program binds it, or the port could be in TIME_WAIT, where bind
    fails without SO_REUSEADDR.
    """
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
        ephemeral_start = int(text.split()[0])
    except (OSError, ValueError):
        ephemeral_start = _DEFAULT_EPHEMERAL_START
    while True:
        port = random.SystemRandom().randrange(_FIRST_PORT, max(ephemeral_start, _MIN_RANGE_END))
        with (
            socket.socket() as tcp,
            socket.socket(type=socket.SOCK_DGRAM) as udp,
            contextlib.suppress(OSError),
        ):
            tcp.bind(("", port))
            udp.bind(("", port))
            return port
