"""Blocking client connections.

    with connect("tcp://127.0.0.1:12000") as connection:
        print(connection.request("hello"))

`bothends.client.asyncio` has the same methods. The operations are in `_core.py`; this module only waits: in
poll(), which unlike select() accepts any descriptor.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import TypeVar

from bothends.client._core import BaseConnection, Operation, Wait
from bothends.client.dial import open_stream
from bothends.client.receive_buffer import READ_SIZE
from bothends.client.tls import TlsOptions
from bothends.endpoints import Endpoint
from bothends.errors import ConnectionLost
from bothends.framing import DEFAULT_LIMIT

__all__ = ["Connection", "connect"]

T = TypeVar("T")


def connect(
    endpoint: str | Endpoint,
    *,
    timeout: float | None = 10.0,
    limit: int = DEFAULT_LIMIT,
    source: tuple[str, int] | None = None,
    tls: TlsOptions | None = None,
) -> Connection:
    """Connect to an endpoint, trying each of its addresses. Close the connection, or use it as a context.

    On UDP nothing is sent yet, so a missing server is noticed only when the first reply does not arrive.

    Args:
        endpoint: the endpoint, as a value or a URL.
        timeout: seconds, None for no limit. Limits connecting, and then every wait for the peer: the longest
            period without progress, not the whole exchange.
        limit: maximum line length in bytes.
        source: address and port to connect from; "" and 0 leave the choice to the kernel.
        tls: for tls:// endpoints: how to verify the server, and more; default: the system's trusted issuers.

    Raises:
        EndpointError, UnknownName: the endpoint is invalid, or cannot be connected to.
        SystemCallFailed: the connect failed or was refused; Unavailable if the kernel lacks the family.
        TimeoutExpired: no connection in time.
        HandshakeFailed: the TLS handshake failed, or the certificate is invalid.
    """
    parsed = Endpoint.parse(endpoint) if isinstance(endpoint, str) else endpoint
    return Connection(open_stream(parsed, timeout=timeout, source=source, tls=tls), parsed, timeout, limit)


class Connection(BaseConnection):
    """A connection, or a connected datagram socket.

    Its messages are lines on a stream, and datagrams or packets on a message-oriented socket. One thread may
    send while another receives.

    Every method that waits raises:
        TimeoutExpired: no progress for `timeout` seconds. Data received before can still be taken.
        ConnectionLost: the peer reset the connection, or closed it before the requested data had arrived.
        SystemCallFailed: on datagrams, a delivery error of an earlier one (ECONNREFUSED), or a message that
            is too large (EMSGSIZE).
    """

    def __init__(
        self,
        sock: socket.socket,
        endpoint: Endpoint,
        timeout: float | None = 10.0,
        limit: int = DEFAULT_LIMIT,
    ) -> None:
        super().__init__(sock, endpoint, timeout, limit)

    def send(self, data: bytes) -> None:
        """Send all data, as one message on a message-oriented socket. Does not read meanwhile."""
        self._run(self.core.send(data))

    def send_line(self, line: str | bytes) -> None:
        """Send a message: the line with LF on a stream, bare on a message-oriented socket."""
        self._run(self.core.send_line(line))

    def receive(self, size: int = READ_SIZE) -> bytes:
        """Receive at most `size` bytes, b"" at the peer's EOF; or one message of any size."""
        return self._run(self.core.receive(size))

    def receive_line(self) -> bytes:
        """Receive the next line without its LF or CR LF, or the next message. The last line may lack its LF.

        Raises:
            ConnectionLost: the peer has closed, and no line is left (`errno` is then 0).
            MessageTooLong: the line exceeds `limit`.
        """
        return self._run(self.core.receive_line())

    def receive_exactly(self, size: int) -> bytes:
        """Receive `size` bytes of a stream. Raises ConnectionLost if the peer closes before."""
        return self._run(self.core.receive_exactly(size))

    def receive_all(self) -> bytes:
        """Receive everything until the peer's EOF, whatever its size."""
        return self._run(self.core.receive_all())

    def request(self, message: str | bytes, *, retries: int = 0) -> bytes:
        """Send a line and receive a line; or send and receive a message. Reads while sending: no deadlock.

        On datagrams, `retries` repeats the request while there is no reply, with a timeout that doubles each
        time; all waits together last `timeout`. Data received before the request is discarded, because it
        cannot be the reply.
        """
        return self._run(self.core.request(message, retries))

    def exchange(self, data: bytes) -> bytes:
        """Send all data, half-close, and receive everything until the peer's EOF.

        It reads while sending, so there is no deadlock if the peer replies before it has read everything.
        """
        return self._run(self.core.exchange(data))

    def __iter__(self) -> Iterator[bytes]:
        """Yield lines until the peer's EOF, or messages."""
        while True:
            try:
                yield self.receive_line()
            except ConnectionLost as error:
                if error.errno:
                    raise
                return

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, operation: Operation[T]) -> T:
        try:
            wait = next(operation)
            while True:
                wait = operation.send(self._wait(wait))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            operation.close()

    def _wait(self, wait: Wait) -> bool:
        poller = select.poll()
        poller.register(self.core.socket, wait.read * select.POLLIN | wait.write * select.POLLOUT)
        return bool(poller.poll(None if wait.timeout is None else wait.timeout * 1000))
