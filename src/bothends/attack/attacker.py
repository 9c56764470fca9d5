"""What an attack is made of: sockets, a request, a seed and a deadline. All are bounded.

1. No more than `MAX_SOCKETS` are open; they are closed when the attack ends.
2. Errors of the server are no errors here: a connection that is refused, reset or closed is counted.
3. Loops have a rate. A flood without one would measure the machine, not the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from bothends.check.subjects.recorded_socket import socket_address
from bothends.client import faults
from bothends.client.dial import open_stream
from bothends.client.tls import TlsOptions
from bothends.endpoints import Endpoint
from bothends.errors import BothendsError

MAX_SOCKETS: Final = 1500
CONNECT_TIMEOUT: Final = 2.0  # seconds: longer than the first retransmission of a SYN (RFC 6298: 1 s)
_READ_SIZE: Final = 65_536


class Attacker:
    """One attack in progress.

    `endpoint` has an address as its host; `request` is what the honest client sends; `random` is seeded;
    `counts` are shown in the report: "connections", "refused", "bytes", "resets" and others.
    """

    def __init__(self, endpoint: Endpoint, request: bytes, seed: str, duration: float) -> None:
        self.endpoint = endpoint
        self.request = request
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.deadline = time.monotonic() + duration
        self._sockets: set[Any] = set()
        family, kind, self._address = socket_address(endpoint)
        self._family, self._kind = socket.AddressFamily(family), socket.SocketKind(kind)

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, 0 after it."""
        return max(0.0, self.deadline - time.monotonic())

    async def pause(self, seconds: float) -> bool:
        """Wait, up to the deadline. Returns whether it is not over."""
        await asyncio.sleep(min(seconds, self.remaining))
        return self.remaining > 0

    async def paced(self, per_second: float) -> AsyncIterator[int]:
        """Yield 0, 1, 2 and so on at a rate, until the deadline. What is late is not caught up in a burst."""
        number = 0
        due = time.monotonic()
        while self.remaining > 0:
            yield number
            number += 1
            due = max(due + 1 / per_second, time.monotonic() - 0.1)
            await asyncio.sleep(max(0.0, min(due - time.monotonic(), self.remaining)))

    async def crowd(self, number: int, member: Callable[[int], Awaitable[None]]) -> None:
        """Run `number` members at the same time until the deadline, and cancel those that are left."""
        tasks = [asyncio.ensure_future(member(each)) for each in range(number)]
        try:
            done, _ = await asyncio.wait(tasks, timeout=self.remaining)
            for each in done:
                each.result()
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def open(self, *, small_rcvbuf: bool = False) -> socket.socket | None:
        """Connect, without the handshakes that the endpoint names. Returns None if that fails."""
        if len(self._sockets) >= MAX_SOCKETS:
            return None
        sock = socket.socket(self._family, self._kind)
        sock.setblocking(False)
        self._sockets.add(sock)
        if small_rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        if self._family == socket.AF_UNIX and self._kind == socket.SOCK_DGRAM:
            sock.bind("")  # to a unique abstract address (unix(7)), to which the server can reply
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(min(CONNECT_TIMEOUT, self.remaining)):
                await loop.sock_connect(sock, self._address)
        except OSError:  # also TimeoutError
            self.counts["refused"] += 1
            self.close(sock)
            return None
        except BaseException:
            self.close(sock)
            raise
        self.counts["connections"] += 1
        if self._family != socket.AF_UNIX and self._kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    async def open_session(self, *, small_rcvbuf: bool = False) -> Any:
        """Connect, with the TLS handshake or PROXY header that the endpoint names. None if that fails."""
        if self.endpoint.scheme != "tls" and not self.endpoint.wrappers:
            return await self.open(small_rcvbuf=small_rcvbuf)
        endpoint = self.endpoint.with_options(rcvbuf=1) if small_rcvbuf else self.endpoint
        tls = TlsOptions(verify=False) if endpoint.scheme == "tls" else None
        opening = functools.partial(open_stream, endpoint, timeout=CONNECT_TIMEOUT, tls=tls)
        try:
            sock = await asyncio.to_thread(opening)
        except (OSError, BothendsError):
            self.counts["refused"] += 1
            return None
        sock.setblocking(False)
        self._sockets.add(sock)
        self.counts["connections"] += 1
        return sock

    async def send(self, sock: Any, data: bytes | memoryview, flags: int = 0) -> bool:
        """Send all data before the deadline. Returns whether that worked; a failed socket is closed."""
        view = memoryview(data)
        while view and self.remaining > 0:
            try:
                sent = sock.send(view, flags) if flags else sock.send(view)
            except BlockingIOError:
                await self._wait(sock, write=True)
                continue
            except (OSError, BothendsError):
                self.counts["broken"] += 1
                self.close(sock)
                return False
            self.counts["bytes"] += sent
            view = view[sent:]
        return not view

    def discard_input(self, sock: Any) -> bool:
        """Read what has arrived. Returns False at EOF or after an error; the socket is closed then."""
        try:
            while data := sock.recv(_READ_SIZE):
                self.counts["bytes received"] += len(data)
        except BlockingIOError:
            return True
        except (OSError, BothendsError):
            pass
        self.close(sock)
        return False

    async def read_until_eof(self, sock: Any) -> bool:
        """Read until EOF or an error. Returns False if the deadline comes before."""
        while self.remaining > 0 and sock.fileno() >= 0:
            if not self.discard_input(sock):
                return True
            await self._wait(sock, write=False)
        return False

    async def hold(self, sock: Any) -> None:
        """Keep a connection open until the deadline or the server's end of it, and read nothing else."""
        await self.read_until_eof(sock)

    def reset(self, sock: Any) -> None:
        """Close with RST."""
        self._sockets.discard(sock)
        self.counts["resets"] += 1
        with contextlib.suppress(OSError):
            faults.reset(sock)

    def abandon(self, sock: Any) -> None:
        """Reset a connection, close it, or leave it open and send nothing more: one of them at random."""
        match self.random.randrange(3):
            case 0:
                self.reset(sock)
            case 1:
                self.close(sock)
            case _:
                self.counts["stalled"] += 1

    def close(self, sock: Any) -> None:
        """Close. Idempotent."""
        self._sockets.discard(sock)
        with contextlib.suppress(OSError, BothendsError):
            sock.close()

    def close_all(self) -> None:
        """Close all sockets that are still open."""
        for sock in list(self._sockets):
            self.close(sock)

    async def _wait(self, sock: Any, *, write: bool) -> None:
        """Wait until a socket is ready, or the deadline comes."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        descriptor = sock.fileno()
        add, remove = (
            (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
        )
        add(descriptor, ready.set)
        try:
            async with asyncio.timeout(self.remaining):
                await ready.wait()
        except TimeoutError:
            pass
        finally:
            remove(descriptor)
