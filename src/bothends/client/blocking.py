"""The other end, for programs that wait by blocking.

    with connect("tcp://127.0.0.1:12000") as connection:
        print(connection.request("hello"))

The same verbs stand in `bothends.client.asyncio`; what they do is in `_core.py`, and here is only how
they wait: in poll(), which unlike select() takes any descriptor.
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

T = TypeVar("T")


def connect(
    endpoint: str | Endpoint,
    *,
    timeout: float | None = 10.0,
    limit: int = DEFAULT_LIMIT,
    source: tuple[str, int] | None = None,
    tls: TlsOptions | None = None,
) -> Connection:
    """Connect to an endpoint, trying each of its addresses. Close what it gives, or use it as a context.

    `timeout` (seconds, None for no limit) bounds the connecting, and then every wait for the peer: the
    longest silence, not the whole exchange. `limit` is the longest line in bytes. `source` is the
    address and port to come from: ("", 0) leaves either to the system. `tls` is for tls:// endpoints:
    whose certificate to believe, and more; without it, as the system does.

    On UDP nothing is sent yet, so that nobody listens is only known when the first answer stays away.

    Raises:
        EndpointError, UnknownName: `endpoint` cannot be read, or not be connected to.
        SystemRefused: the system, or the other end, said no; Unavailable where a socket family isn't here.
        TimeLimit: no connection in time.
        HandshakeFailed: TLS came to nothing, or the certificate does not hold.
    """
    where = Endpoint.parse(endpoint) if isinstance(endpoint, str) else endpoint
    return Connection(open_stream(where, timeout=timeout, source=source, tls=tls), where, timeout, limit)


class Connection(BaseConnection):
    """One connection to one peer, or a datagram socket that talks to one peer only.

    Its messages are lines on a stream, and whole datagrams or packets where the socket has boundaries.
    One thread may send while another receives.

    Every verb that waits raises:
        TimeLimit: nothing moved for `timeout` seconds. What had come can still be received.
        ConnectionLost: the peer reset the connection, or closed it before what was asked for had come.
        SystemRefused: on datagrams, what the system reports of earlier ones (ECONNREFUSED), and a
            message that is too large (EMSGSIZE).
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
        """Send all of it; as one message where the socket has boundaries. Does not read meanwhile."""
        self._run(self.core.send(data))

    def send_line(self, line: str | bytes) -> None:
        """Send a message: the line with LF on a stream, bare where the socket has boundaries."""
        self._run(self.core.send_line(line))

    def receive(self, size: int = READ_SIZE) -> bytes:
        """What has come, at most `size` bytes, b"" at the peer's EOF; or one message, whatever its size."""
        return self._run(self.core.receive(size))

    def receive_line(self) -> bytes:
        """The next line without its LF or CR LF, or the next message. The last line may lack its end.

        Raises:
            ConnectionLost: the peer has closed, and no line is left (`errno` is then 0).
            MessageTooLong: the line has passed `limit`.
        """
        return self._run(self.core.receive_line())

    def receive_exactly(self, size: int) -> bytes:
        """So many bytes of a stream. Raises ConnectionLost if the peer closes before."""
        return self._run(self.core.receive_exactly(size))

    def receive_all(self) -> bytes:
        """Everything until the peer's EOF, however much it is."""
        return self._run(self.core.receive_all())

    def request(self, message: str | bytes, *, retries: int = 0) -> bytes:
        """A line out and a line in; a message out and a message in. Reads while it sends: no deadlock.

        On datagrams `retries` sends again when no answer has come, waiting twice as long each time, all
        waits together being `timeout`. What came before the question is dropped: it can't be the answer.
        """
        return self._run(self.core.request(message, retries))

    def exchange(self, data: bytes) -> bytes:
        """Send all, `finish`, and give everything until the peer's EOF. Both directions move at once, so
        however much the peer answers before it has read all, neither waits for the other.
        """
        return self._run(self.core.exchange(data))

    def __iter__(self) -> Iterator[bytes]:
        """Lines until the peer's EOF, or messages."""
        while True:
            try:
                yield self.receive_line()
            except ConnectionLost as lost:
                if lost.errno:
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
