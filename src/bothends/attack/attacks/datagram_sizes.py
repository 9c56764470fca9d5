"""Datagrams of every size, 0 to 65,507 bytes, of bytes that mean nothing."""

from __future__ import annotations

import errno
from typing import Final

from bothends.attack.attacker import Attacker
from bothends.attack.attacks.base import Attack

MAX_PAYLOAD: Final = 65_507  # bytes: 65,535 minus the headers of IPv4 and UDP (RFC 791, RFC 768)
_RATE: Final = 1000  # datagrams a second, about 32 MB/s
_EDGES: Final = (0, 1, 512, 1024, 1472, 1500, 2048, 4096, 8192, 9000, 16_384, 32_768, 65_000, MAX_PAYLOAD)


def sizes(attacker: Attacker) -> list[int]:
    """Return every size once: those around the usual buffers first, then all others at random."""
    first = sorted(
        {size for edge in _EDGES for size in (edge - 1, edge, edge + 1) if 0 <= size <= MAX_PAYLOAD}
    )
    others = sorted(set(range(MAX_PAYLOAD + 1)) - set(first))
    attacker.random.shuffle(others)
    return first + others


async def datagram_sizes(attacker: Attacker) -> None:
    """Send a datagram of each size, as far as time allows, and discard the answers."""
    payload = attacker.random.randbytes(MAX_PAYLOAD)
    todo = sizes(attacker)
    sock = await attacker.open()
    async for number in attacker.paced(_RATE):
        if sock is None or sock.fileno() < 0:
            sock = await attacker.open()
            if sock is None:
                continue
        if number == len(todo):
            return
        try:
            sock.send(payload[: todo[number]])
            attacker.counts["sizes"] += 1
        except BlockingIOError:
            attacker.counts["not sent"] += 1
        except OSError as error:
            # A UNIX socket takes less; ECONNREFUSED and EPIPE say that an earlier one was not taken.
            attacker.counts[f"not sent: {errno.errorcode.get(error.errno or 0, 'error')}"] += 1
        attacker.discard_input(sock)


ATTACK: Final = Attack(
    id="datagram-sizes",
    does=f"{_RATE:,} datagrams a second, of every size from 0 to {MAX_PAYLOAD:,} bytes",
    mistake="takes an empty datagram for EOF, has a short buffer, or ends on EMSGSIZE when it answers",
    run=datagram_sizes,
    kind="datagram",
)
