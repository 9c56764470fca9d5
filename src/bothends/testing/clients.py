"""Clients for tests: plain blocking sockets with a time limit, and nothing of an engine in them.

They say, hear, finish, reset: each method is one deliberate thing to do to a server.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from types import TracebackType
from typing import Any, Final, Self

from bothends.endpoints import Address, Endpoint
from bothends.sockets.options import reset_on_close

# Most seconds that one call may take. It only passes when something is wrong.
TIMEOUT: Final = 30.0

# Larger than any message that a test sends.
_MAX_MESSAGE_SIZE: Final = 256 * 1024


class Client:
    """One end of a connection, or a datagram socket that talks to one endpoint only.

    Args:
        endpoint: where to; with a numeric host.
        rcvbuf, sndbuf: bytes of the kernel's buffers; None leaves them to grow as they like.
        source: the address to call from; on Linux any of 127.0.0.0/8 will do.
        named: bind a UNIX socket to a name of its own, so that the server's events can say who it is.

    Raises:
        OSError: as connect(2).
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        rcvbuf: int | None = None,
        sndbuf: int | None = None,
        source: str | None = None,
        autobind: bool = True,
    ) -> None:
        family, kind, address = _socket_address(endpoint)
        self.socket = socket.socket(family, kind)
        try:
            self.socket.settimeout(TIMEOUT)
            for option, size in ((socket.SO_RCVBUF, rcvbuf), (socket.SO_SNDBUF, sndbuf)):
                if size is not None:
                    self.socket.setsockopt(socket.SOL_SOCKET, option, size)
            if family == socket.AF_UNIX and autobind:
                self.socket.bind("")  # Linux picks an abstract name: unix(7), "Autobind feature"
            if source is not None:
                self.socket.bind((source, 0))
            self.socket.connect(address)
        except BaseException:
            self.socket.close()
            raise
        self.address = Address.from_sockaddr(family, self.socket.getsockname())
        """Who we are, as the server's events name us."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Saying --------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send all of it."""
        if data:
            self.socket.sendall(data)
        else:
            self.socket.send(data)  # an empty datagram

    def send_bytewise(self, data: bytes, interval: float) -> None:
        """Send it one byte at a time, so many seconds apart."""
        for place in range(len(data)):
            self.send(data[place : place + 1])
            self.is_readable(interval)

    def send_until_blocked(self, data: bytes, timeout: float) -> int:
        """Send as much of it as is taken, until nothing is for `within` seconds; how much that was."""
        view = memoryview(data)
        poller = select.poll()
        poller.register(self.socket, select.POLLOUT)
        count = 0
        while count < len(view) and poller.poll(timeout * 1000):
            count += self.socket.send(view[count : count + 65536], socket.MSG_DONTWAIT)
        return count

    def shutdown_write(self) -> None:
        """Say that nothing more will come: shutdown(SHUT_WR)."""
        self.socket.shutdown(socket.SHUT_WR)

    def request(self, data: bytes, size: int | None = None) -> bytes:
        """Say it and hear as many bytes as were said, or `size`."""
        self.send(data)
        return self.receive_exactly(len(data) if size is None else size)

    # Hearing -------------------------------------------------------------------------------------

    def receive_exactly(self, size: int) -> bytes:
        """Exactly so many bytes; fewer only where the other end closes."""
        heard = bytearray()
        while len(heard) < size and (data := self.socket.recv(size - len(heard))):
            heard += data
        return bytes(heard)

    def receive_line(self) -> bytes:
        """Up to a newline, which is included; less only where the other end closes."""
        line = bytearray()
        while not line.endswith(b"\n") and (data := self.socket.recv(1)):
            line += data
        return bytes(line)

    def receive_until_eof(self, limit: int = 64_000_000) -> bytes:
        """Everything until the other end closes.

        Raises:
            ConnectionResetError: it was reset instead.
            AssertionError: it hasn't closed after `most` bytes.
        """
        heard = bytearray()
        while data := self.socket.recv(65536):
            heard += data
            assert len(heard) <= limit, f"it goes on after {limit} bytes"
        return bytes(heard)

    def discard_slowly(self, interval: float) -> int:
        """Read on, a piece after each pause of so many seconds, and keep nothing; how much it was.

        For who has no end unless it is told to end: so slowly that what passes meanwhile is bounded.

        Raises:
            AssertionError: there was no end in PATIENCE seconds.
        """
        count = 0
        until = time.monotonic() + TIMEOUT
        while data := self.socket.recv(65536):
            count += len(data)
            assert time.monotonic() < until, f"{count} bytes, and no end"
            self.is_hung_up(interval)
        return count

    def receive_message(self) -> bytes:
        """One datagram or packet, whole."""
        return self.socket.recv(_MAX_MESSAGE_SIZE)

    def receive_until_closed(self) -> bytes:
        """Everything until the connection is over, by a close or a reset."""
        heard = bytearray()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while data := self.socket.recv(65536):
                heard += data
        return bytes(heard)

    def is_readable(self, timeout: float = 0.0) -> bool:
        """Whether there is something to hear, an end included; waits for it up to `within` seconds."""
        poller = select.poll()
        poller.register(self.socket, select.POLLIN)
        return bool(poller.poll(timeout * 1000))

    def try_receive(self, size: int) -> bytes:
        """As `hear`, but a reset is an end like another."""
        try:
            return self.receive_exactly(size)
        except (ConnectionResetError, BrokenPipeError):
            return b""

    def is_hung_up(self, timeout: float) -> bool:
        """Whether the connection is reset or closed on both sides; waits for it up to `within` seconds.

        The way for a slow reader to be slow: it comes back early only when there is no use in waiting.
        """
        poller = select.poll()
        poller.register(self.socket, 0)
        return bool(poller.poll(timeout * 1000))

    # Leaving -------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Close by RST: what is on its way in either direction is lost (socket(7), SO_LINGER)."""
        reset_on_close(self.socket)
        self.socket.close()

    def close(self) -> None:
        """Close in good order. Idempotent."""
        self.socket.close()


def _socket_address(endpoint: Endpoint) -> tuple[socket.AddressFamily, socket.SocketKind, Any]:
    if endpoint.is_unix:
        kind = {
            "unix": socket.SOCK_STREAM,
            "unix+dgram": socket.SOCK_DGRAM,
            "unix+seqpacket": socket.SOCK_SEQPACKET,
        }[endpoint.scheme]
        path = "\0" + endpoint.path[1:] if endpoint.is_abstract else endpoint.path
        return socket.AF_UNIX, kind, path
    kind = socket.SOCK_DGRAM if endpoint.is_datagram else socket.SOCK_STREAM
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    return family, kind, (endpoint.host, endpoint.port)
