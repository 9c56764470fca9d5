"""A TLS client on a real socket that can do what ssl.SSLSocket cannot: half-close, and be rude."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable

from bothends.endpoints import Endpoint
from tests.layers.dialogue import Client

PATIENCE = 20.0


def dial(endpoint: Endpoint) -> socket.socket:
    """A plain connection to where a server listens."""
    sock = socket.create_connection((endpoint.host, endpoint.port or 0), PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def rest_of(sock: socket.socket) -> bytes:
    """Everything until the end. Raises ConnectionResetError where it isn't a clean one."""
    found = b""
    while data := sock.recv(65536):
        found += data
    return found


class Remote:
    """One connection. Used by `with`."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext, before: bytes = b"") -> None:
        self.socket = dial(endpoint)
        self.end = Client(context, "localhost")
        self._out = before
        self._over = False

    def __enter__(self) -> Remote:
        self.wait_until(lambda: self.end.ready)
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def heard(self) -> bytes:
        return self.end.heard

    def say(self, data: bytes) -> None:
        """Encrypt it; it leaves while waiting."""
        view = memoryview(data)
        while view:
            view = view[self.end.tls.write(view) :]

    def finish(self) -> None:
        """Half-close."""
        self._out += self.end.finish()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Send and receive until then. Raises AssertionError when it takes too long, or can't be."""
        until = time.monotonic() + PATIENCE
        self._out += self.end.step()
        while not condition():
            assert not self._over, f"the connection has ended; heard {len(self.heard)} bytes"
            poller = select.poll()
            poller.register(self.socket, select.POLLIN | (select.POLLOUT if self._out else 0))
            events = poller.poll(max(0.0, until - time.monotonic()) * 1000)
            assert events, f"nothing moves; heard {len(self.heard)} bytes"
            if events[0][1] & ~select.POLLOUT:
                data = self.socket.recv(65536)
                self._over = not data
                self.end.incoming.write(data)
            if self._out and events[0][1] & select.POLLOUT:
                self._out = self._out[self.socket.send(self._out[:65536], socket.MSG_DONTWAIT) :]
            self._out += self.end.step()

    def deliver(self) -> None:
        """Wait until all that was said has left."""
        self.wait_until(lambda: not self._out)

    def hear(self, size: int) -> bytes:
        """Wait for so many bytes in all."""
        self.wait_until(lambda: len(self.heard) >= size)
        return self.heard
