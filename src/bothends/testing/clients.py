"""Clients for tests: plain blocking sockets with a timeout. They share no code with the engines.

Each method does one specific thing to a server: send, receive, half-close, reset.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from bothends.endpoints import Address, Endpoint
from bothends.sockets.options import reset_on_close

# Timeout of each call, in seconds. It expires only if something is wrong.
TIMEOUT: Final = 30.0

# Bytes: larger than any message of a test.
_MAX_MESSAGE_SIZE: Final = 256 * 1024

# The states of TCP in which nothing more is exchanged after a RST, and after the server's FIN: `tcpi_state`,
# the first byte of TCP_INFO (tcp(7)), numbered as in include/net/tcp_states.h.
_TCP_CLOSE: Final = 7
_TCP_CLOSE_WAIT: Final = 8


class StreamEnd(NamedTuple):
    """How a server has ended a connection, as its peer's socket shows it."""

    data: bytes
    """Everything received before the end."""

    is_reset: bool
    """Whether the end is ECONNRESET, and not EOF."""


class Client:
    """A connection to an endpoint, or a datagram socket connected to it. A context manager.

    Args:
        endpoint: the endpoint to connect to, with a numeric host.
        rcvbuf, sndbuf: sizes of the kernel's buffers in bytes; None leaves them to autotuning.
        source: the source address. On Linux any address in 127.0.0.0/8 works.
        autobind: bind a UNIX socket to an abstract name, by which the server's events identify it.
        may_be_reset: the server may reset the connection at once; the first receive shows it then.

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
        may_be_reset: bool = False,
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
            if may_be_reset:
                self._connect_unchecked(address)
            else:
                self.socket.connect(address)
        except BaseException:
            self.socket.close()
            raise
        self.address = Address.from_sockaddr(family, self.socket.getsockname())
        """The client's address, as the server's events have it."""

    def _connect_unchecked(self, address: Any) -> None:
        """Connect without a look at SO_ERROR, so that a reset is left for the first receive."""
        self.socket.setblocking(False)
        error = self.socket.connect_ex(address)
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, os.strerror(error))
        poller = select.poll()
        poller.register(self.socket, select.POLLOUT)
        if not poller.poll(1000 * TIMEOUT):
            raise TimeoutError("the connection was not established")
        self.socket.settimeout(TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Sending -------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        if data:
            self.socket.sendall(data)
        else:
            self.socket.send(data)  # an empty datagram

    def send_bytewise(self, data: bytes, interval: float) -> None:
        """Send `data` one byte at a time, `interval` seconds apart, or less if a reply arrives."""
        for offset in range(len(data)):
            self.send(data[offset : offset + 1])
            self.is_readable(interval)

    def send_until_blocked(self, data: bytes, timeout: float) -> int:
        """Send until the socket is not writable for `timeout` seconds. Returns the bytes sent."""
        view = memoryview(data)
        poller = select.poll()
        poller.register(self.socket, select.POLLOUT)
        count = 0
        while count < len(view) and poller.poll(timeout * 1000):
            count += self.socket.send(view[count : count + 65536], socket.MSG_DONTWAIT)
        return count

    def shutdown_write(self) -> None:
        """Half-close: shutdown(SHUT_WR)."""
        self.socket.shutdown(socket.SHUT_WR)

    def request(self, data: bytes, size: int | None = None) -> bytes:
        """Send `data` and receive `size` bytes. Default: as many as were sent."""
        self.send(data)
        return self.receive_exactly(len(data) if size is None else size)

    # Receiving -----------------------------------------------------------------------------------

    def receive_exactly(self, size: int) -> bytes:
        """Receive `size` bytes, or fewer at EOF."""
        received = bytearray()
        while len(received) < size and (data := self.socket.recv(size - len(received))):
            received += data
        return bytes(received)

    def receive_line(self) -> bytes:
        """Receive a line with its newline, or what there is of it at EOF."""
        line = bytearray()
        while not line.endswith(b"\n") and (data := self.socket.recv(1)):
            line += data
        return bytes(line)

    def receive_until_eof(self, limit: int = 64_000_000) -> bytes:
        """Receive everything until EOF.

        Raises:
            ConnectionResetError: the connection was reset.
            AssertionError: there is no EOF after `limit` bytes.
        """
        received = bytearray()
        while data := self.socket.recv(65536):
            received += data
            assert len(received) <= limit, f"no EOF after {limit} bytes"
        return bytes(received)

    def discard_slowly(self, interval: float) -> int:
        """Receive and discard until EOF, one piece every `interval` seconds. Returns the number of bytes.

        For a server that sends until it is stopped: the slow reading limits the amount of data.

        Raises:
            AssertionError: there is no EOF within TIMEOUT seconds.
        """
        count = 0
        until = time.monotonic() + TIMEOUT
        while data := self.socket.recv(65536):
            count += len(data)
            assert time.monotonic() < until, f"no EOF after {count} bytes"
            self.is_hung_up(interval)
        return count

    def receive_message(self) -> bytes:
        """Receive one datagram or seqpacket message."""
        return self.socket.recv(_MAX_MESSAGE_SIZE)

    def receive_until_closed(self) -> bytes:
        """Receive everything until EOF or a reset."""
        received = bytearray()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while data := self.socket.recv(65536):
                received += data
        return bytes(received)

    def receive_end(self, interval: float = 0.0) -> StreamEnd:
        """Receive everything until EOF or ECONNRESET, one piece every `interval` seconds.

        Raises:
            AssertionError: there is no end within TIMEOUT seconds.
        """
        received = bytearray()
        until = time.monotonic() + TIMEOUT
        try:
            while data := self.socket.recv(65536):
                received += data
                assert time.monotonic() < until, f"no end after {len(received)} bytes"
                if interval:
                    self.is_hung_up(interval)
        except ConnectionResetError:
            return StreamEnd(bytes(received), is_reset=True)
        return StreamEnd(bytes(received), is_reset=False)

    def has_received_fin(self) -> bool:
        """Whether the kernel has received the server's FIN, but no RST (TCP only).

        recv(2) cannot tell: after the FIN it returns EOF, even if a RST has followed.
        """
        return self._tcp_state() == _TCP_CLOSE_WAIT

    def has_received_rst(self) -> bool:
        """Whether the kernel has received a RST (TCP only), before or after the server's FIN."""
        return self._tcp_state() == _TCP_CLOSE

    def _tcp_state(self) -> int:
        return self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]

    def is_readable(self, timeout: float = 0.0) -> bool:
        """Whether data or EOF can be received. Waits for it for at most `timeout` seconds."""
        poller = select.poll()
        poller.register(self.socket, select.POLLIN)
        return bool(poller.poll(timeout * 1000))

    def try_receive(self, size: int) -> bytes:
        """Receive as `receive_exactly`, but return b"" after a reset."""
        try:
            return self.receive_exactly(size)
        except (ConnectionResetError, BrokenPipeError):
            return b""

    def is_hung_up(self, timeout: float) -> bool:
        """Whether the connection is reset, or closed in both directions. Waits for at most `timeout` seconds.

        Slow readers use it as their pause, because it returns early only if there is nothing to wait for.
        """
        poller = select.poll()
        poller.register(self.socket, 0)
        return bool(poller.poll(timeout * 1000))

    # Closing -------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Close with RST: data in flight in either direction is lost (socket(7), SO_LINGER)."""
        reset_on_close(self.socket)
        self.socket.close()

    def close(self) -> None:
        """Close normally. Idempotent."""
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
