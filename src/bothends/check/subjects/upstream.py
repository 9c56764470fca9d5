"""The server behind a proxy under test: sockets of the checker on one port, which it can stop and start.

Connections to a closed port are refused, and the port stays reserved: another socket with SO_REUSEADDR is
bound to it, which never listens (socket(7)).
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any, Final

from bothends.check.subjects.own_network import OwnNetwork, entered

HOST: Final = "127.0.0.1"
DEFAULT_BACKLOG: Final = 512  # connections: more than any case opens at the same time
_FIRST_POLL: Final = 0.001  # seconds between looks at the accept queue, which grow to:
_MAX_POLL: Final = 0.01
_MAX_UNCLAIMED: Final = 200  # connections: far above what a proxy opens in advance


class StreamUpstream:
    """A TCP listener, and the connections that the proxy has opened to it.

    A connection belongs to the client whose first bytes arrive on it. So it does not matter in which order a
    proxy connects, or whether it also opens connections on which nothing arrives (health checks).
    """

    def __init__(self, network: OwnNetwork | None, port: int = 0) -> None:
        """`network`: the proxy's network namespace; `port`: 0 for a free one."""
        self._network = network
        self._holder = self._bound_socket(port)
        self.port = int(self._holder.getsockname()[1])
        self._listener: socket.socket | None = None
        self._unclaimed: list[socket.socket] = []
        self.accepted = 0
        """The number of connections that were accepted."""
        self.listen()

    def _bound_socket(self, port: int) -> socket.socket:
        with entered(self._network):
            sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, port))
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        return sock

    def listen(self, backlog: int = DEFAULT_BACKLOG) -> None:
        """Listen, or change the length of the accept queue."""
        if self._listener is None:
            self._listener = self._bound_socket(self.port)
        self._listener.listen(backlog)

    def refuse(self) -> None:
        """Stop listening: connections are refused (RFC 9293, section 3.10.7.1)."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def accept(self, timeout: float) -> socket.socket:
        """Return the next connection, whatever arrives on it.

        Raises:
            TimeoutError: there is none within `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            pause = _FIRST_POLL
            while not self._unclaimed:
                self._accept_queued()
                if not self._unclaimed:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _MAX_POLL)
        return self._unclaimed.pop(0)

    async def accept_from(self, first: bytes, timeout: float) -> socket.socket:
        """Return the connection on which `first` arrives, which is then received.

        Raises:
            TimeoutError: it does not arrive within `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            pause = _FIRST_POLL
            while True:
                self._accept_queued()
                for sock in list(self._unclaimed):
                    data = _peek(sock, len(first))
                    if data == first:
                        sock.recv(len(first))
                        self._unclaimed.remove(sock)
                        return sock
                await asyncio.sleep(pause)
                pause = min(pause * 2, _MAX_POLL)

    def describe_unclaimed(self) -> tuple[int, bytes]:
        """Return the number of connections whose client is not known, and the data on the last of them."""
        self._accept_queued()
        data = _peek(self._unclaimed[-1], 64) if self._unclaimed else None
        return len(self._unclaimed), data or b""

    def _accept_queued(self) -> None:
        """Accept the connections in the accept queue, and forget those that have ended without data."""
        if self._listener is not None:
            with suppress(OSError):
                while len(self._unclaimed) < _MAX_UNCLAIMED:
                    sock, _ = self._listener.accept()
                    sock.setblocking(False)
                    self._unclaimed.append(sock)
                    self.accepted += 1
        for sock in list(self._unclaimed):
            if _peek(sock, 1) == b"":
                self._unclaimed.remove(sock)
                sock.close()

    def close(self) -> None:
        """Close all sockets. Idempotent."""
        self.refuse()
        for sock in (*self._unclaimed, self._holder):
            sock.close()
        self._unclaimed.clear()


class DatagramUpstream:
    """A UDP socket on one port."""

    def __init__(self, network: OwnNetwork | None, port: int = 0) -> None:
        """`network`: the proxy's network namespace; `port`: 0 for a free one."""
        self._network = network
        self._socket: socket.socket | None = None
        self.port = port
        self.listen()

    def listen(self) -> None:
        """Bind the socket, unless it is bound."""
        if self._socket is not None:
            return
        with entered(self._network):
            sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            sock.bind((HOST, self.port))
        except OSError:
            sock.close()
            raise
        self._socket = sock
        self.port = sock.getsockname()[1]

    def refuse(self) -> None:
        """Close the socket: datagrams are answered by ICMP port unreachable (RFC 1122, section 4.1.3.1)."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def receive(self, timeout: float) -> tuple[bytes, Any]:
        """Return the next datagram, and its source address.

        Raises:
            TimeoutError: none arrives within `timeout` seconds.
        """
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.sock_recvfrom(self._socket, 65_536), timeout)

    def send(self, data: bytes, address: Any) -> None:
        """Send a datagram."""
        assert self._socket is not None
        with suppress(ConnectionRefusedError):  # of an earlier datagram
            self._socket.sendto(data, address)

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self.refuse()


Upstream = StreamUpstream | DatagramUpstream


def _peek(sock: socket.socket, size: int) -> bytes | None:
    """Return up to `size` bytes that have arrived, and stay; b"" at an end, None if nothing has arrived."""
    try:
        return sock.recv(size, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    except OSError:
        return b""
