"""The other end, for programs that wait in an event loop: asyncio's own, or uvloop.

    async with connect("tcp://127.0.0.1:12000") as connection:
        print(await connection.request("hello"))

The same verbs stand in `bothends.client.blocking`; what they do is in `_core.py`, and here is only how
they wait: the loop watches the socket, and nothing stands between the two. No transport means no
buffer that fills unseen, and datagrams of any size, 0 included.
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

T = TypeVar("T")


def connect(
    endpoint: str | Endpoint,
    *,
    timeout: float | None = 10.0,
    limit: int = DEFAULT_LIMIT,
    source: tuple[str, int] | None = None,
    tls: TlsOptions | None = None,
) -> ConnectContext:
    """As `blocking.connect`: await it for a connection that you close, or use it with `async with`.

    Raises, when it is awaited:
        EndpointError, UnknownName: `endpoint` cannot be read, or not be connected to.
        SystemRefused: the system, or the other end, said no; Unavailable where a socket family isn't here.
        TimeLimit: no connection in time.
        HandshakeFailed: TLS came to nothing, or the certificate does not hold.
    """
    return ConnectContext(endpoint, timeout, limit, source, tls)


class ConnectContext:
    """A connection in the making: awaitable, and an asynchronous context."""

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
        where = Endpoint.parse(self._endpoint) if isinstance(self._endpoint, str) else self._endpoint
        opens = functools.partial(
            open_stream, where, timeout=self._timeout, source=self._source, tls=self._tls
        )
        return AsyncConnection(await _connect_in_thread(opens), where, self._timeout, self._limit)


class AsyncConnection(BaseConnection):
    """As `blocking.Connection`: one task may send while another receives. `finish` and `close` don't wait,
    and so are plain calls here too.

    Every verb that waits raises:
        TimeLimit: nothing moved for `timeout` seconds. What had come can still be received.
        ConnectionLost: the peer reset the connection, or closed it before what was asked for had come.
        SystemRefused: on datagrams, what the system reports of earlier ones (ECONNREFUSED), and a
            message that is too large (EMSGSIZE).
    A verb that is cancelled loses nothing that came.
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
        """Send all of it; as one message where the socket has boundaries. Does not read meanwhile."""
        await self._run(self.core.send(data))

    async def send_line(self, line: str | bytes) -> None:
        """Send a message: the line with LF on a stream, bare where the socket has boundaries."""
        await self._run(self.core.send_line(line))

    async def receive(self, size: int = READ_SIZE) -> bytes:
        """What has come, at most `size` bytes, b"" at the peer's EOF; or one message, whatever its size."""
        return await self._run(self.core.receive(size))

    async def receive_line(self) -> bytes:
        """The next line without its LF or CR LF, or the next message. The last line may lack its end.

        Raises:
            ConnectionLost: the peer has closed, and no line is left (`errno` is then 0).
            MessageTooLong: the line has passed `limit`.
        """
        return await self._run(self.core.receive_line())

    async def receive_exactly(self, size: int) -> bytes:
        """So many bytes of a stream. Raises ConnectionLost if the peer closes before."""
        return await self._run(self.core.receive_exactly(size))

    async def receive_all(self) -> bytes:
        """Everything until the peer's EOF, however much it is."""
        return await self._run(self.core.receive_all())

    async def request(self, message: str | bytes, *, retries: int = 0) -> bytes:
        """A line out and a line in; a message out and a message in. See `blocking.Connection.request`."""
        return await self._run(self.core.request(message, retries))

    async def exchange(self, data: bytes) -> bytes:
        """Send all, `finish`, and give everything until the peer's EOF, both directions moving at once."""
        return await self._run(self.core.exchange(data))

    def close(self) -> None:
        """Close both sides; whoever still waits for either meets ConnectionLost. Idempotent."""
        # The loop must forget the descriptor before the system gives its number to someone else.
        for wake in tuple(self._wakeups):
            wake()
        super().close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Lines until the peer's EOF, or messages."""
        while True:
            try:
                yield await self.receive_line()
            except ConnectionLost as lost:
                if lost.errno:
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
    """Open a connection in a thread, for resolving names blocks (getaddrinfo(3)).

    A thread of its own, and a daemon: the loop's executor would make a program that is interrupted
    wait for a host that doesn't answer. If nobody wants the socket any more, it is closed.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[socket.socket] = loop.create_future()

    def deliver(sock: socket.socket | None, error: BaseException | None) -> None:
        if error is not None:
            if not done.cancelled():
                done.set_exception(error)
        elif sock is not None:
            if done.cancelled():
                sock.close()
            else:
                done.set_result(sock)

    def work() -> None:
        sock, problem = None, None
        try:
            sock = connector()
        except BaseException as error:
            problem = error
        try:
            loop.call_soon_threadsafe(deliver, sock, problem)
        except RuntimeError:  # the loop is closed
            if sock is not None:
                sock.close()

    threading.Thread(target=work, name="bothends-connect", daemon=True).start()
    try:
        return await done
    except asyncio.CancelledError:
        if done.done() and not done.cancelled() and done.exception() is None:
            done.result().close()
        raise
