"""TLS handshakes that stall, are cut, or are garbage after a right beginning."""

from __future__ import annotations

import ssl
from typing import Final

from bothends.attack.attacker import Attacker
from bothends.attack.attacks.base import Attack

_RATE: Final = 150  # connections a second
_HANDSHAKE: Final = b"\x16\x03\x01"  # type and version of a handshake record (RFC 8446, section 5.1)


def client_hello() -> bytes:
    """Return the first flight of a client (RFC 8446, section 4.1.2)."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    connection = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="attacked.test")
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


async def tls_handshakes(attacker: Attacker) -> None:
    """Send beginnings of handshakes that never become one. A part stalls, the others are closed or reset."""
    hello, random = client_hello(), attacker.random
    async for _ in attacker.paced(_RATE):
        sock = await attacker.open()
        if sock is None:
            continue
        cut = random.randrange(1, len(hello))
        data = random.choice([
            hello[:cut],
            hello + random.randbytes(200),
            hello[:cut] + random.randbytes(len(hello) - cut),
            _HANDSHAKE + b"\xff\xff" + random.randbytes(500),  # longer than a record may be
            _HANDSHAKE + b"\x00\x00" * 100,  # empty records
            hello + b"\x15\x03\x03\x00\x02\x02\x28",  # a fatal alert: handshake_failure
            hello + hello,
        ])  # fmt: skip
        if await attacker.send(sock, data):
            attacker.abandon(sock)


ATTACK: Final = Attack(
    id="tls-handshakes",
    does=f"{_RATE} connections a second with TLS handshakes that are cut, garbage, or stall",
    mistake="does the handshake where it accepts, without a timeout, or ends on an error of one handshake",
    run=tls_handshakes,
)
