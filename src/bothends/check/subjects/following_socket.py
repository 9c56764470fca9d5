"""A datagram socket of a case whose server replies from a new port, to which the client then sends (TFTP).

It is not connected until the first reply, because a connected socket receives from its peer only (udp(7)).
"""

from __future__ import annotations

import asyncio
from typing import Any

from bothends.check.case import CheckFailed
from bothends.check.subjects.recorded_socket import RecordedSocket
from bothends.check.transcript import quote_bytes
from bothends.errors import errno_text


class FollowingSocket(RecordedSocket):
    """A datagram socket that is connected to the sender of the first reply."""

    _address: Any = None  # the server's, before its first reply

    async def connect(self, address: Any) -> None:
        self.note("opens a socket")
        self._address = address

    async def send(self, data: bytes) -> None:
        if self._address is None:
            await super().send(data)
            return
        self.note(f"sends {quote_bytes(data)}")
        try:
            self.socket.sendto(data, self._address)
        except OSError as error:
            raise CheckFailed("a datagram", f"sendto(): {errno_text(error.errno or 0)}") from error

    async def receive(self, timeout: float, size: int = 65_536) -> bytes:
        if self._address is None:
            return await super().receive(timeout, size)
        loop = asyncio.get_running_loop()
        data, peer = await asyncio.wait_for(loop.sock_recvfrom(self.socket, size), timeout)
        self.socket.connect(peer)
        self.note(f"is answered from port {peer[1]}")
        self._address = None
        return data
