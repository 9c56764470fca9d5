"""A TLS client for tests that can half-close, stall and be truncated, which ssl.SSLSocket cannot.

`SansIoTlsClient` is the TLS of the standard library on two byte buffers; `TlsClient` runs it on a socket.
Each wait has a timeout, after which the test fails.
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

# Seconds. It expires only if something is wrong, or the machine is very busy.
TIMEOUT: Final = 20.0

_CHUNK: Final = 64 * 1024


def insecure_context(maximum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """Create a client context that does not verify certificates, because test servers sign their own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = maximum_version
    return context


class SansIoTlsClient:
    """The client side of TLS, without a socket.

    Attributes:
        received: the plaintext received so far.
        handshake_done: whether the handshake is complete.
        close_notify_received: whether the server has sent close_notify.
    """

    def __init__(self, context: ssl.SSLContext, name: str | None = "example.org") -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.received = b""
        self.handshake_done = False
        self.close_notify_received = False

    def step(self) -> bytes:
        """Process the input. Returns the ciphertext to send. Raises ssl.SSLError."""
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
        """Encrypt `data`. Returns the ciphertext to send."""
        self.ssl_object.write(data)
        return self.outgoing.read()

    def close_notify(self) -> bytes:
        """Create a close_notify alert. Returns the ciphertext to send."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.ssl_object.unwrap()
        return self.outgoing.read()


class TlsClient:
    """One TLS connection. As a context manager it completes the handshake first.

    Args:
        endpoint: the endpoint to connect to.
        context: the TLS context.
        prefix: bytes to send before the handshake: a PROXY header.
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
        """The client's address, as the server's events have it without a PROXY header."""
        return self._client.address

    @property
    def received(self) -> bytes:
        """The plaintext received so far."""
        return self.tls.received

    def send(self, data: bytes) -> None:
        """Encrypt `data`. It is sent during the next wait."""
        view = memoryview(data)
        while view:
            view = view[self.tls.ssl_object.write(view) :]

    def shutdown_write(self) -> None:
        """Half-close with close_notify. It is sent during the next wait."""
        self._out += self.tls.close_notify()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Send and receive until `condition()` is true.

        Raises:
            AssertionError: the timeout expired, or the connection has ended.
        """
        until = time.monotonic() + TIMEOUT
        self._out += self.tls.step()
        while not condition():
            assert not self._eof_received, f"unexpected EOF; received {len(self.received)} bytes"
            poller = select.poll()
            poller.register(self.socket, select.POLLIN | (select.POLLOUT if self._out else 0))
            events = poller.poll(max(0.0, until - time.monotonic()) * 1000)
            assert events, f"no progress in {TIMEOUT:g} s; received {len(self.received)} bytes"
            if events[0][1] & ~select.POLLOUT:
                data = self.socket.recv(_CHUNK)
                self._eof_received = not data
                self.tls.incoming.write(data)
            if self._out and events[0][1] & select.POLLOUT:
                self._out = self._out[self.socket.send(self._out[:_CHUNK], socket.MSG_DONTWAIT) :]
            self._out += self.tls.step()

    def flush(self) -> None:
        """Wait until everything is sent."""
        self.wait_until(lambda: not self._out)

    def receive_exactly(self, size: int) -> bytes:
        """Wait until at least `size` bytes have been received in all. Returns all plaintext received."""
        self.wait_until(lambda: len(self.received) >= size)
        return self.received

    def receive_until_eof(self) -> bytes:
        """Wait for close_notify. Returns all plaintext received."""
        self.wait_until(lambda: self.tls.close_notify_received)
        return self.received
