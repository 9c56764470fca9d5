"""What speaks once, unasked, and is done: how `daytime`, `time` and `qotd` talk on a connection."""

from __future__ import annotations

from bothends.services.base import Conversation


class OneShot(Conversation):
    """Says `data`, then is done. What the peer sends is thrown away, as the RFCs have it."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def start(self) -> bytes:
        self.done = True
        return self._data

    def receive(self, data: bytes) -> bytes:
        return b""
