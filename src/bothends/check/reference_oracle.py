"""Correct replies from a reference server that runs beside the program.

It is asked on a new connection for each message, and each message once, because a reply may not depend on the
messages before it. The sockets block: the reference server is another process, and waits for nothing.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from bothends.check.oracle import ExpectedReply, Oracle
from bothends.check.subjects.recorded_socket import socket_address
from bothends.endpoints import Endpoint
from bothends.errors import ServiceError, errno_text
from bothends.framing import Framing

_SILENCE: Final = 0.2  # seconds after the last byte of a reply without framing
_MAX_REPLY: Final = 16 << 20  # bytes


class ReferenceOracle(Oracle):
    """Replies are those of a reference server.

    Args:
        framing: that of a stream, or None.
        is_datagram: messages are datagrams.
    """

    def __init__(self, framing: Framing | None, *, is_datagram: bool) -> None:
        self._framing = framing
        self._is_datagram = is_datagram
        self._endpoint: Endpoint | None = None
        self._new_socket: Callable[[int, int], socket.socket] = socket.socket
        self._timeout = 0.0
        self._replies: dict[bytes, ExpectedReply] = {}

    def connect_to(
        self, endpoint: Endpoint, new_socket: Callable[[int, int], socket.socket], timeout: float
    ) -> None:
        """Set the server to ask. `new_socket` makes a socket of a family and type; `timeout`: seconds."""
        self._endpoint, self._new_socket, self._timeout = endpoint, new_socket, timeout

    def reply(self, message: bytes) -> ExpectedReply:
        """Return the reference server's reply.

        Raises:
            ServiceError: it cannot be asked.
        """
        if message not in self._replies:
            try:
                self._replies[message] = self._ask(message)
            except OSError as error:
                raise ServiceError("the reference server", errno_text(error.errno or 0)) from error
        return self._replies[message]

    def _ask(self, message: bytes) -> ExpectedReply:
        if self._endpoint is None:
            raise ServiceError("the reference server", "it does not run", "give its command with --against")
        family, kind, address = socket_address(self._endpoint)
        with self._new_socket(family, kind) as sock:
            sock.settimeout(self._timeout)
            sock.connect(address)
            if self._is_datagram:
                sock.send(message)
                try:
                    return ExpectedReply(sock.recv(65_536))
                except TimeoutError:
                    return ExpectedReply(silent=True)
            sock.sendall(self._framing.encode(message) if self._framing else message)
            received = self._receive(sock)
        return ExpectedReply(received) if received else ExpectedReply(silent=True)

    def _receive(self, sock: socket.socket) -> bytes:
        """Receive up to EOF, the end of a message, or silence after data."""
        received = b""
        decoder = self._framing.decoder() if self._framing else None
        deadline = time.monotonic() + self._timeout
        with suppress(TimeoutError):
            while len(received) < _MAX_REPLY and (remaining := deadline - time.monotonic()) > 0:
                sock.settimeout(min(remaining, _SILENCE) if received and decoder is None else remaining)
                data = sock.recv(65_536)
                received += data
                if not data or (decoder is not None and decoder.feed(data)):
                    break
        return received
