"""PROXY headers that stall, lie about their length, or are garbage."""

from __future__ import annotations

from typing import Final

from bothends.attack.attacker import Attacker
from bothends.attack.attacks.base import Attack

_RATE: Final = 150  # connections a second
_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"  # of version 2 (PROXY protocol, section 2.2)
_V1: Final = b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 443\r\n"


async def proxy_headers(attacker: Attacker) -> None:
    """Send headers that a server must not wait for, and must not believe."""
    random = attacker.random
    async for _ in attacker.paced(_RATE):
        sock = await attacker.open()
        if sock is None:
            continue
        data = random.choice([
            _V1[: random.randrange(1, len(_V1))],
            b"PROXY TCP4 " + b"1" * 4000,  # longer than a header may be: 107 bytes
            b"PROXY TCP4 999.0.2.1 192.0.2.2 99999 -1\r\n",
            b"PROXY UNKNOWN\r\n" + attacker.request,
            _SIGNATURE[: random.randrange(1, len(_SIGNATURE))],
            _SIGNATURE + b"\x21\x11\xff\xff" + random.randbytes(100),  # 65,535 bytes are announced
            _SIGNATURE + b"\x91\x11\x00\x0c" + random.randbytes(12),  # there is no version 9
            _SIGNATURE + b"\x21\x11\x00\x03" + random.randbytes(3),  # too short for its addresses
            random.randbytes(64),
        ])  # fmt: skip
        if await attacker.send(sock, data):
            attacker.abandon(sock)


ATTACK: Final = Attack(
    id="proxy-headers",
    does=f"{_RATE} connections a second with PROXY headers that are cut, garbage, or stall",
    mistake="waits for the rest of a header without a timeout, or believes the length in it",
    run=proxy_headers,
)
