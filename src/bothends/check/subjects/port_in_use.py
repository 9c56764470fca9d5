"""Find out whether a program ended because its port is in use, and wait until it can be bound.

The evidence is what the program wrote, such as "Address already in use" (strerror(3) of EADDRINUSE), or that
bind(2) fails now, too. The socket table names the state of what has the port.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from collections import Counter
from pathlib import Path
from typing import Final

from bothends.check.subjects.own_network import OwnNetwork, entered
from bothends.check.subjects.recorded_socket import socket_address
from bothends.endpoints import Endpoint
from bothends.socket_table import proc_net

_COMPLAINT: Final = re.compile(rb"(?i)address (is )?already in use|EADDRINUSE|\bBindException\b")
_POLL_INTERVAL: Final = 0.25  # seconds


def complains_of_port(output: bytes) -> bool:
    """Whether a program's output says that its port is in use."""
    return _COMPLAINT.search(output) is not None


def is_bindable(endpoint: Endpoint, network: OwnNetwork | None = None) -> bool:
    """Whether a socket without SO_REUSEADDR can be bound to the port of an endpoint now (socket(7))."""
    family, kind, _ = socket_address(endpoint)
    if family == socket.AF_UNIX:
        return True
    with entered(network), socket.socket(family, kind) as sock:
        try:
            sock.bind(("", endpoint.port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


async def wait_bindable(endpoint: Endpoint, timeout: float) -> bool:
    """Return whether the port of an endpoint can be bound within `timeout` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while not is_bindable(endpoint):
        if loop.time() > deadline:
            return False
        await asyncio.sleep(_POLL_INTERVAL)
    return True


def describe_use(endpoint: Endpoint, network: OwnNetwork | None = None) -> str:
    """Return the states of the sockets that have the port of an endpoint, such as "3 in TIME-WAIT"; or ""."""
    with entered(network):
        found = list(proc_net.read(Path("/proc/thread-self/net"), protocols=(endpoint.scheme,)))
    states = Counter(entry.state for entry in found if entry.local.port == endpoint.port)
    return ", ".join(f"{count} in {state}" for state, count in sorted(states.items()))
