"""A TLS client for tests: one that can half-close, dawdle and be cut off, which ssl.SSLSocket can't.

`SansIoTlsClient` is the standard library's TLS between two byte strings; `TlsClient` puts it on a real socket.
Every wait has a deadline, after which the test fails.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Final

from bothends.endpoints import Address, Endpoint
from bothends.testing.clients import Client

# Generous: it only passes when something is wrong, or the machine is very busy.
TIMEOUT: Final = 20.0

_CHUNK: Final = 64 * 1024


def insecure_context(maximum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """A client's context that believes any certificate: for servers of our own, with one of the occasion."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = maximum_version
    return context


class SansIoTlsClient:
    """The client's side, without a socket. `heard` is what it has decrypted, `ended` whether close_notify has
    come, `ready` whether hands have been shaken."""

    def __init__(self, context: ssl.SSLContext, name: str | None = "example.org") -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.received = b""
        self.handshake_done = False
        self.close_notify_received = False

    def step(self) -> bytes:
        """Go as far as possible; what to send. Raises ssl.SSLError."""
        try:
            if not self.handshake_done:
                self.ssl_object.do_handshake()
                self.handshake_done = True
            while piece := self.ssl_object.read(_CHUNK):
                self.received += piece
            self.close_notify_received = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.close_notify_received = True
        return self.outgoing.read()

    def encrypt(self, data: bytes) -> bytes:
        """Encrypt it; what to send."""
        self.ssl_object.write(data)
        return self.outgoing.read()

    def close_notify(self) -> bytes:
        """Say close_notify; what to send."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.ssl_object.unwrap()
        return self.outgoing.read()


class TlsClient:
    """One connection, whose hands have been shaken. Used by `with`.

    Args:
        endpoint: where the server listens.
        context: how to speak TLS.
        before: what goes ahead of it all: a PROXY header.
    """

    def __init__(
        self, endpoint: Endpoint, context: ssl.SSLContext | None = None, prefix: bytes = b""
    ) -> None:
        self._client = Client(endpoint)
        self.socket: socket.socket = self._client.socket
        self.tls = SansIoTlsClient(context or insecure_context(), "localhost")
        self._out = prefix
        self._eof_received = False

    def __enter__(self) -> TlsClient:
        self.wait_until(lambda: self.tls.handshake_done and not self._out)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def address(self) -> Address:
        """What the server sees of us, as long as no header says otherwise."""
        return self._client.address

    @property
    def received(self) -> bytes:
        """All that was said to us so far."""
        return self.tls.received

    def send(self, data: bytes) -> None:
        """Encrypt it; it leaves while waiting."""
        view = memoryview(data)
        while view:
            view = view[self.tls.ssl_object.write(view) :]

    def shutdown_write(self) -> None:
        """Half-close; it leaves while waiting."""
        self._out += self.tls.close_notify()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Send and receive until then.

        Raises:
            AssertionError: it takes too long, or can't be any more.
        """
        until = time.monotonic() + TIMEOUT
        self._out += self.tls.step()
        while not condition():
            assert not self._eof_received, f"the connection has ended; heard {len(self.received)} bytes"
            poller = select.poll()
            poller.register(self.socket, select.POLLIN | (select.POLLOUT if self._out else 0))
            events = poller.poll(max(0.0, until - time.monotonic()) * 1000)
            assert events, f"nothing moves; heard {len(self.received)} bytes"
            if events[0][1] & ~select.POLLOUT:
                data = self.socket.recv(_CHUNK)
                self._eof_received = not data
                self.tls.incoming.write(data)
            if self._out and events[0][1] & select.POLLOUT:
                self._out = self._out[self.socket.send(self._out[:_CHUNK], socket.MSG_DONTWAIT) :]
            self._out += self.tls.step()

    def flush(self) -> None:
        """Wait until all that was said has left."""
        self.wait_until(lambda: not self._out)

    def receive_exactly(self, size: int) -> bytes:
        """Wait for so many bytes in all."""
        self.wait_until(lambda: len(self.received) >= size)
        return self.received

    def receive_until_eof(self) -> bytes:
        """Wait for close_notify; all that was said to us."""
        self.wait_until(lambda: self.tls.close_notify_received)
        return self.received
