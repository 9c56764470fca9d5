"""The operations of a connection as generators that never block: the part shared by all clients.

1. An operation is a generator. It moves the bytes that the socket accepts or has at once, and yields a `Wait`
   instead of blocking. The driver waits (blocking or async) and sends back whether the socket became ready
   (True) or the timeout passed (False). The generator's return value is the result.
2. The socket is non-blocking. Its errors are translated here, where the calls are made.
3. Received data stays in the receive buffer until it is taken, so an interrupted operation (a timeout, ^C, a
   cancelled task) loses no data.
4. One reader and one writer at a time. A second one is refused, because each would receive an arbitrary part
   of the data.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias, TypeVar

from bothends.client.receive_buffer import (
    MAX_MESSAGE,
    NO_REPLY_HINT,
    READ_SIZE,
    ReceiveBuffer,
    retry_timeouts,
    translate_oserror,
)
from bothends.client.tls import TlsSocket
from bothends.endpoints import Address, Endpoint
from bothends.errors import ConnectionLost, TimeoutExpired, UnsupportedCombination
from bothends.hexdump import ByteDirection

T = TypeVar("T")

# Bytes read while a request is being sent. Beyond this the client stops reading, so flow control stops the
# peer and memory stays bounded.
MAX_READ_WHILE_SENDING: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Wait:
    """The readiness that an operation waits for. `timeout` in seconds; None for no limit."""

    read: bool
    write: bool
    timeout: float | None


Operation: TypeAlias = Generator[Wait, bool, T]


class ConnectionCore:
    """The operations of one connection.

    `timeout` limits each wait, in seconds: the longest period without progress, not the whole operation.
    `watcher` is called with the data of each read and write. Empty data means EOF in that direction, or an
    empty datagram on a datagram socket.
    """

    def __init__(self, sock: socket.socket, endpoint: Endpoint, timeout: float | None, limit: int) -> None:
        sock.setblocking(False)
        kind = sock.type
        self.socket = sock
        self.label = endpoint.label
        self.timeout = timeout
        self.datagrams = kind == socket.SOCK_DGRAM
        self.message_oriented = self.datagrams or kind == socket.SOCK_SEQPACKET
        self.receive_buffer = ReceiveBuffer(
            message_oriented=self.message_oriented, datagrams=self.datagrams, limit=limit
        )
        self.write_closed = False
        self.watcher: Callable[[ByteDirection, bytes], None] | None = None
        self._read_size = MAX_MESSAGE if self.message_oriented else READ_SIZE
        self._in_progress: set[str] = set()

    def try_receive(self, operation: str = "receiving") -> bool:
        """Move the bytes of one read into the receive buffer. Returns False if there are none now."""
        try:
            data = self.socket.recv(self._read_size)
        except BlockingIOError:
            return False
        except OSError as error:
            raise translate_oserror(error, operation, self.label, datagrams=self.datagrams) from error
        self._on_received(data)
        if data and isinstance(self.socket, TlsSocket) and self.socket.eof_received:
            self._on_received(b"")  # close_notify came with the data, and poll() does not report it
        return True

    @property
    def has_unsent(self) -> bool:
        """Whether the socket has unsent ciphertext: wait for writability too, then call `try_receive`."""
        return isinstance(self.socket, TlsSocket) and self.socket.has_unsent

    @property
    def supports_half_close(self) -> bool:
        """Whether `half_close` works: TLS 1.2 closes both directions or none."""
        return not isinstance(self.socket, TlsSocket) or self.socket.supports_half_close

    def try_send(self, data: bytes | memoryview) -> int | None:
        """Send the bytes that the socket accepts now (a message whole). Returns their count, or None."""
        if self.write_closed:
            raise UnsupportedCombination(
                "this connection", "sending", "half_close() has closed its sending side"
            )
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            return None
        except OSError as error:
            raise translate_oserror(error, "sending", self.label, datagrams=self.datagrams) from error
        if self.watcher is not None:
            self.watcher("sent", bytes(data[:sent]))
        return sent

    def send(self, data: bytes | memoryview, *, read_while_sending: int = 0) -> Operation[None]:
        """Send all data, as one message on a message-oriented socket.

        With `read_while_sending` it also reads, until the receive buffer holds that many bytes: a peer may
        stop reading the rest of a request until its reply to the beginning is read.
        """
        reading: AbstractContextManager[None] = (
            self._exclusive("receiving") if read_while_sending else nullcontext()
        )
        with self._exclusive("sending"), reading:
            view = memoryview(data).cast("B")
            while True:
                sent = self.try_send(view)
                if sent is not None:
                    view = view[sent:]
                    if not view:
                        return
                    continue
                reads = self.receive_buffer.size < read_while_sending and not self.receive_buffer.eof_received
                if reads and self.try_receive():
                    continue
                if not (yield Wait(read=reads, write=True, timeout=self.timeout)):
                    self._raise_timeout("sending", "the peer does not read")

    def send_line(self, line: str | bytes, *, read_while_sending: int = 0) -> Operation[None]:
        """Send a message: with LF on a stream, bare on a message-oriented socket. Text becomes UTF-8."""
        data = line.encode() if isinstance(line, str) else line
        return self.send(
            data if self.message_oriented else data + b"\n", read_while_sending=read_while_sending
        )

    def receive(self, size: int) -> Operation[bytes]:
        """Receive at most `size` bytes of a stream, b"" at the peer's EOF; or one message of any size."""
        while (data := self.receive_buffer.take(size)) is None:
            if self.receive_buffer.eof_received:
                return b""
            yield from self._fill("receiving")
        return data

    def receive_line(self) -> Operation[bytes]:
        """Receive a line without its line ending, or one message."""
        operation = "waiting for a reply" if self.message_oriented else "waiting for a line"
        while (line := self.receive_buffer.take_line()) is None:
            self._require_no_eof(operation)
            yield from self._fill(operation)
        return line

    def receive_exactly(self, size: int) -> Operation[bytes]:
        """Receive `size` bytes of a stream."""
        if self.message_oriented:
            raise UnsupportedCombination(
                "receive_exactly", self.label, "it preserves message boundaries", "use receive()"
            )
        while (data := self.receive_buffer.take_exactly(size)) is None:
            operation = f"waiting for {size} bytes (received {self.receive_buffer.size})"
            self._require_no_eof(operation)
            yield from self._fill(operation)
        return data

    def receive_all(self) -> Operation[bytes]:
        """Receive everything until the peer's EOF."""
        self._require_half_close("receive_all")
        while not self.receive_buffer.eof_received:
            yield from self._fill("waiting for the peer's EOF")
        return self.receive_buffer.take_all()

    def request(self, message: str | bytes, retries: int) -> Operation[bytes]:
        """Send a line and receive a line; or send and receive a message."""
        if not self.datagrams:
            yield from self.send_line(message, read_while_sending=MAX_READ_WHILE_SENDING)
            return (yield from self.receive_line())
        # Anything received before the request is a late or duplicate reply to an earlier one.
        while self.try_receive():
            pass
        self.receive_buffer.take_all()
        for seconds in retry_timeouts(self.timeout, retries):
            yield from self.send_line(message)
            if (yield from self._try_fill("waiting for a reply", seconds)):
                return self.receive_buffer.take(MAX_MESSAGE) or b""
        self._raise_timeout("waiting for a reply", NO_REPLY_HINT)

    def exchange(self, data: bytes) -> Operation[bytes]:
        """Send all data, half-close, and receive everything until the peer's EOF, reading while sending."""
        self._require_half_close("exchange")
        yield from self.send(data, read_while_sending=1 << 62)
        self.half_close()
        return (yield from self.receive_all())

    def half_close(self) -> None:
        """Close the sending side: the peer reads EOF and can still reply."""
        self._require_half_close("half_close")
        if self.write_closed:
            return
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise translate_oserror(error, "half-closing", self.label, datagrams=False) from error
        self.write_closed = True
        if self.watcher is not None:
            self.watcher("sent", b"")

    def _fill(self, operation: str) -> Operation[None]:
        if not (yield from self._try_fill(operation, self.timeout)):
            self._raise_timeout(operation)

    def _try_fill(self, operation: str, timeout: float | None) -> Operation[bool]:
        with self._exclusive("receiving"):
            while not self.try_receive(operation):
                if not (yield Wait(read=True, write=self.has_unsent, timeout=timeout)):
                    return False
            return True

    def _require_no_eof(self, operation: str) -> None:
        if self.receive_buffer.eof_received:
            raise ConnectionLost(self.label, operation)

    def _on_received(self, data: bytes) -> None:
        if self.watcher is not None:
            self.watcher("received", data)
        self.receive_buffer.feed(data)

    def _require_half_close(self, method: str) -> None:
        if self.datagrams:
            raise UnsupportedCombination(method, self.label, "a datagram socket has no EOF")

    def _raise_timeout(self, operation: str, hint: str = "") -> NoReturn:
        raise TimeoutExpired(self.label, operation, self.timeout or 0.0, hint)

    @contextmanager
    def _exclusive(self, operation: str) -> Iterator[None]:
        if operation in self._in_progress:
            raise UnsupportedCombination(
                "one connection", f"two callers {operation} at once", "each would get part of the data"
            )
        self._in_progress.add(operation)
        try:
            yield
        finally:
            self._in_progress.discard(operation)


class BaseConnection:
    """The attributes and non-waiting methods shared by blocking and asynchronous connections.

    `endpoint` is the connected endpoint; `local` and `peer` are the addresses of both ends; `core` has the
    operations, for callers with their own driver.
    """

    def __init__(self, sock: socket.socket, endpoint: Endpoint, timeout: float | None, limit: int) -> None:
        self.endpoint = endpoint
        self.core = ConnectionCore(sock, endpoint, timeout, limit)
        self.local = Address.from_sockaddr(sock.family, sock.getsockname())
        try:
            self.peer = Address.from_sockaddr(sock.family, sock.getpeername())
        except OSError:  # the peer has reset the connection already; the first read reports it
            self.peer = Address("none")

    @property
    def socket(self) -> socket.socket:
        """The non-blocking socket, for its options and for `faults`."""
        return self.core.socket

    @property
    def timeout(self) -> float | None:
        """The maximum wait for the peer in seconds; None for no limit."""
        return self.core.timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self.core.timeout = seconds

    def half_close(self) -> None:
        """Close the sending side (shutdown, SHUT_WR): the peer reads EOF and can still reply. Idempotent.

        Raises:
            ConnectionLost: the connection is closed or reset already.
            UnsupportedCombination: a datagram socket has no EOF; TLS 1.2 cannot half-close.
        """
        self.core.half_close()

    def close(self) -> None:
        """Close both sides. Idempotent."""
        self.core.socket.close()
