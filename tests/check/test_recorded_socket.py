"""The sockets of the cases: a flood ends when the peer reads no more, not when the machine is busy."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import pytest

from bothends.check.subjects.recorded_socket import RecordedSocket
from bothends.check.transcript import Transcript

STALL = 0.01  # seconds


@pytest.mark.parametrize("pauses", [0, 1, 3])
def test_flood_goes_on_while_the_peer_is_not_asleep(pauses: int) -> None:
    data = bytes(8 << 20)
    sender, peer = socket.socketpair()
    looks = 0

    def is_peer_idle() -> bool:
        """Read all at each look, as a peer does that gets the processor late; then it is asleep."""
        nonlocal looks
        looks += 1
        if looks > pauses:
            return True
        with suppress(BlockingIOError):
            while peer.recv(1 << 20):
                pass
        return False

    async def flood() -> int:
        client = RecordedSocket(sender, "client", Transcript(), 1.0)
        return await client.send_without_reading(data, STALL, is_peer_idle)

    with sender, peer:
        sender.setblocking(False)
        peer.setblocking(False)
        sent = asyncio.run(flood())
    assert looks == pauses + 1
    assert 0 < sent < len(data)


def test_flood_ends_although_the_peer_never_sleeps() -> None:
    async def flood() -> int:
        client = RecordedSocket(sender, "client", Transcript(), 1.0)
        return await client.send_without_reading(bytes(8 << 20), STALL, lambda: False)

    sender, peer = socket.socketpair()
    with sender, peer:
        sender.setblocking(False)
        assert 0 < asyncio.run(flood()) < 8 << 20
