"""Find a free port for programs that cannot bind port 0 and report the result."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path
from typing import Final

_FIRST_PORT: Final = 10_240
_MIN_RANGE_END: Final = 20_480  # if the ephemeral range starts below this, the two ranges overlap
_DEFAULT_EPHEMERAL: Final = range(32_768, 61_000)


def ephemeral_ports() -> range:
    """Return the ports that the kernel assigns (ip(7), ip_local_port_range)."""
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
        first, last = map(int, text.split())
    except (OSError, ValueError):
        return _DEFAULT_EPHEMERAL
    return range(first, last + 1)


def free_port() -> int:
    """Return a port that is free now, for TCP and UDP on every address.

    It is outside the ephemeral range, because the kernel could assign an ephemeral port to a connection
    before the program binds it, or the port could be in TIME_WAIT, where bind fails without SO_REUSEADDR.
    """
    end = max(ephemeral_ports().start, _MIN_RANGE_END)
    while True:
        port = random.SystemRandom().randrange(_FIRST_PORT, end)
        with (
            socket.socket() as tcp,
            socket.socket(type=socket.SOCK_DGRAM) as udp,
            contextlib.suppress(OSError),
        ):
            tcp.bind(("", port))
            udp.bind(("", port))
            return port
