"""Kurose and Ross's pinger: capitals, and a third of the pings is lost.

Mistakes: swaps-case, first-client, stale-buffer, loses-all, cuts.
"""

from __future__ import annotations

import random

from tests.check.contracts.programs.serving import MISTAKE, bind_udp

sock = bind_udp()
chance = random.Random(14)
first = None
buffer = bytearray(65536)
while True:
    size, peer = sock.recvfrom_into(buffer)
    first = first or peer
    ping = bytes(
        buffer[: max(size, len(bytes(buffer).rstrip(b"\0")))] if MISTAKE == "stale-buffer" else buffer[:size]
    )
    if chance.random() < 0.3 or MISTAKE == "loses-all":
        continue
    reply = ping.swapcase() if MISTAKE == "swaps-case" else ping.upper()
    if MISTAKE == "cuts":
        reply = reply[:128]
    sock.sendto(reply, first if MISTAKE == "first-client" else peer)
