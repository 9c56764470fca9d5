"""Client connections for asyncio, with its own event loop or uvloop.

    async with connect("tcp://127.0.0.1:12000") as connection:
        print(await connection.request("hello"))

`bothends.client.blocking` has the same methods. The operations are in `_core.py`; this module only waits: the
event loop watches the socket directly. Without a transport there is no hidden buffer, and datagrams of any
size work, 0 included.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import threading
from collections.abc import AsyncIterator, Callable, Generator
from types import TracebackType
from typing import Any, TypeVar

from bothends.client._core import BaseConnection, Operation, Wait
from bothends.client.dial import open_stream
from bothends.client.receive_buffer import READ_SIZE
from bothends.client.tls import TlsOptions
from bothends.endpoints import Endpoint
from bothends.errors import ConnectionLost
from bothends.framing import DEFAULT_LIMIT

__all__ = ["AsyncConnection", "ConnectContext", "connect"]

T = TypeVar("T")


def connect(
    endpoint: str | Endpoint,
    *,
    timeout: float | None = 10.0,
    limit: int = DEFAULT_LIMIT,
    source: tuple[str, int] | None = None,
    tls: TlsOptions | None = None,
) -> ConnectContext:
    """As `blocking.connect`. Await it for a connection that you close, or use it with `async with`.

    Raises, when it is awaited:
        EndpointError, UnknownName: the endpoint is invalid, or cannot be connected to.
        SystemCallFailed: the connect failed or was refused; Unavailable if the kernel lacks the family.
        TimeoutExpired: no connection in time.
        HandshakeFailed: the TLS handshake failed, or the certificate is invalid.
    """
    return ConnectContext(endpoint, timeout, limit, source, tls)


class ConnectContext:
    """The result of `connect`: awaitable, and an asynchronous context manager."""

    def __init__(
        self,
        endpoint: str | Endpoint,
        timeout: float | None,
        limit: int,
        source: tuple[str, int] | None,
        tls: TlsOptions | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._limit = limit
        self._source = source
        self._tls = tls
        self._connection: AsyncConnection | None = None

    def __await__(self) -> Generator[Any, Any, AsyncConnection]:
        return self._connect().__await__()

    async def __aenter__(self) -> AsyncConnection:
        self._connection = await self._connect()
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()

    async def _connect(self) -> AsyncConnection:
        endpoint = Endpoint.parse(self._endpoint) if isinstance(self._endpoint, str) else self._endpoint
        connector = functools.partial(
            open_stream, endpoint, timeout=self._timeout, source=self._source, tls=self._tls
        )
        return AsyncConnection(await _connect_in_thread(connector), endpoint, self._timeout, self._limit)


class AsyncConnection(BaseConnection):
    """As `blocking.Connection`: one task may send while another receives. `half_close` and `close` do not
    wait, so they are plain methods here too.

    Every method that waits raises:
        TimeoutExpired: no progress for `timeout` seconds. Data received before can still be taken.
        ConnectionLost: the peer reset the connection, or closed it before the requested data had arrived.
        SystemCallFailed: on datagrams, a delivery error of an earlier one (ECONNREFUSED), or a message that
            is too large (EMSGSIZE).
    Cancelling a method loses no received data.
    """

    def __init__(
        self,
        sock: socket.socket,
        endpoint: Endpoint,
        timeout: float | None = 10.0,
        limit: int = DEFAULT_LIMIT,
    ) -> None:
        super().__init__(sock, endpoint, timeout, limit)
        self._wakeups: set[Callable[[], None]] = set()

    async def send(self, data: bytes) -> None:
        """Send all data, as one message on a message-oriented socket. Does not read meanwhile."""
        await self._run(self.core.send(data))

    async def send_line(self, line: str | bytes) -> None:
        """Send a message: the line with LF on a stream, bare on a message-oriented socket."""
        await self._run(self.core.send_line(line))

    async def receive(self, size: int = READ_SIZE) -> bytes:
        """Receive at most `size` bytes, b"" at the peer's EOF; or one message of any size."""
        return await self._run(self.core.receive(size))

    async def receive_line(self) -> bytes:
        """Receive the next line without its LF or CR LF, or the next message. The last line may lack its LF.

        Raises:
            ConnectionLost: the peer has closed, and no line is left (`errno` is then 0).
            MessageTooLong: the line exceeds `limit`.
        """
        return await self._run(self.core.receive_line())

    async def receive_exactly(self, size: int) -> bytes:
        """Receive `size` bytes of a stream. Raises ConnectionLost if the peer closes before."""
        return await self._run(self.core.receive_exactly(size))

    async def receive_all(self) -> bytes:
        """Receive everything until the peer's EOF, whatever its size."""
        return await self._run(self.core.receive_all())

    async def request(self, message: str | bytes, *, retries: int = 0) -> bytes:
        """Send and receive a line; or send and receive a message. See `blocking.Connection.request`."""
        return await self._run(self.core.request(message, retries))

    async def exchange(self, data: bytes) -> bytes:
        """Send all data, half-close, and receive everything until the peer's EOF, reading while sending."""
        return await self._run(self.core.exchange(data))

    def close(self) -> None:
        """Close both sides; pending operations raise ConnectionLost. Idempotent."""
        # The loop must stop watching the descriptor before the kernel reuses its number.
        for wake in tuple(self._wakeups):
            wake()
        super().close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield lines until the peer's EOF, or messages."""
        while True:
            try:
                yield await self.receive_line()
            except ConnectionLost as error:
                if error.errno:
                    raise
                return

    async def __aenter__(self) -> AsyncConnection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _run(self, operation: Operation[T]) -> T:
        try:
            wait = next(operation)
            while True:
                wait = operation.send(await self._wait(wait))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            operation.close()

    async def _wait(self, wait: Wait) -> bool:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        descriptor = self.socket.fileno()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)
            if wake in self._wakeups:
                self._wakeups.discard(wake)
                if wait.read:
                    loop.remove_reader(descriptor)
                if wait.write:
                    loop.remove_writer(descriptor)

        self._wakeups.add(wake)
        if wait.read:
            loop.add_reader(descriptor, wake)
        if wait.write:
            loop.add_writer(descriptor, wake)
        try:
            async with asyncio.timeout(wait.timeout):
                await ready
        except TimeoutError:
            return False
        finally:
            wake()
        return True


async def _connect_in_thread(connector: Callable[[], socket.socket]) -> socket.socket:
    """Open a connection in a thread, because resolving names blocks (getaddrinfo(3)).

    A separate daemon thread, because an interrupted program would wait for the loop's executor until the host
    answers. If the caller is cancelled, the socket is closed.
    """
    loop = asyncio.get_running_loop()
    connected: asyncio.Future[socket.socket] = loop.create_future()

    def deliver(sock: socket.socket | None, error: BaseException | None) -> None:
        if error is not None:
            if not connected.cancelled():
                connected.set_exception(error)
        elif sock is not None:
            if connected.cancelled():
                sock.close()
            else:
                connected.set_result(sock)

    def connect_in_thread() -> None:
        sock, failure = None, None
        try:
            sock = connector()
        except BaseException as error:
            failure = error
        try:
            loop.call_soon_threadsafe(deliver, sock, failure)
        except RuntimeError:  # the loop is closed
            if sock is not None:
                sock.close()

    threading.Thread(target=connect_in_thread, name="bothends-connect", daemon=True).start()
    try:
        return await connected
    except asyncio.CancelledError:
        if connected.done() and not connected.cancelled() and connected.exception() is None:
            connected.result().close()
        raise
