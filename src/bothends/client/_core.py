"""What a connection can do, as steps that never wait: the part that is the same for all who do.

1. A step is a generator. It moves what the socket takes or gives at once, and where it would have to
   wait it yields a `Wait` instead. Whoever drives it waits in his own way and sends back whether the
   socket became ready (True) or the time passed (False). What the step returns is the result.
2. The socket is non-blocking. Its errors are translated here, where its calls are made.
3. What has come stays in the inbox until it is taken: a step that is given up (a time limit, ^C, a
   cancelled task) loses nothing that came.
4. One reader and one writer at a time; a second one is told so, for the bytes would be shared out at
   random.
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

# What is read along while a request is being sent. A peer that goes on answering beyond this, unread,
# has to wait, and memory stays bounded.
MAX_READ_WHILE_SENDING: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Wait:
    """What a step waits for, and for how long: seconds, or None for as long as it takes."""

    read: bool
    write: bool
    timeout: float | None


Operation: TypeAlias = Generator[Wait, bool, T]


class ConnectionCore:
    """The verbs of one connection. `timeout` bounds each wait: the longest silence, in seconds.

    `watch` is told of what each read and write moved; no data at all is the end of that direction, and on
    a datagram socket an empty datagram.
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

    def try_receive(self, doing: str = "receiving") -> bool:
        """Move one read's bytes into the inbox; False if there are none now."""
        try:
            data = self.socket.recv(self._read_size)
        except BlockingIOError:
            return False
        except OSError as error:
            raise translate_oserror(error, doing, self.label, datagrams=self.datagrams) from error
        self._on_received(data)
        if data and isinstance(self.socket, TlsSocket) and self.socket.eof_received:
            self._on_received(b"")  # close_notify came along, and poll() would not tell
        return True

    @property
    def has_unsent(self) -> bool:
        """The socket has something left to send by itself: wait for room too, and then try to receive."""
        return isinstance(self.socket, TlsSocket) and self.socket.has_unsent

    @property
    def supports_half_close(self) -> bool:
        """Whether `finish` is to be had: TLS 1.2 ends both directions or none."""
        return not isinstance(self.socket, TlsSocket) or self.socket.supports_half_close

    def try_send(self, data: bytes | memoryview) -> int | None:
        """Give the socket what it takes now (a message: all of it), or None if it takes nothing."""
        if self.write_closed:
            raise UnsupportedCombination("this connection", "more", "its sending side was closed by finish()")
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
        """Send all of it, as one message where the socket has boundaries.

        With `read_while_sending` it reads meanwhile, until the inbox holds so many bytes: for a peer that will
        not take the rest before it has got rid of its answer to the beginning.
        """
        reads_too: AbstractContextManager[None] = (
            self._exclusive("receiving") if read_while_sending else nullcontext()
        )
        with self._exclusive("sending"), reads_too:
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
        """Send a message: with LF on a stream, bare where the socket has boundaries. Text becomes UTF-8."""
        data = line.encode() if isinstance(line, str) else line
        return self.send(
            data if self.message_oriented else data + b"\n", read_while_sending=read_while_sending
        )

    def receive(self, size: int) -> Operation[bytes]:
        """At most `size` bytes of a stream, b"" at the peer's EOF; or one message, whatever its size."""
        while (data := self.receive_buffer.take(size)) is None:
            if self.receive_buffer.eof_received:
                return b""
            yield from self._fill("receiving")
        return data

    def receive_line(self) -> Operation[bytes]:
        """A line without its end, or one whole message."""
        doing = "waiting for an answer" if self.message_oriented else "waiting for a line"
        while (line := self.receive_buffer.take_line()) is None:
            self._require_no_eof(doing)
            yield from self._fill(doing)
        return line

    def receive_exactly(self, size: int) -> Operation[bytes]:
        """`size` bytes of a stream."""
        if self.message_oriented:
            raise UnsupportedCombination(
                "receive_exactly", self.label, "its messages come whole", "use receive()"
            )
        while (data := self.receive_buffer.take_exactly(size)) is None:
            doing = f"waiting for {size} bytes ({self.receive_buffer.size} came)"
            self._require_no_eof(doing)
            yield from self._fill(doing)
        return data

    def receive_all(self) -> Operation[bytes]:
        """Everything until the peer's EOF."""
        self._require_half_close("receive_all")
        while not self.receive_buffer.eof_received:
            yield from self._fill("waiting for the peer's EOF")
        return self.receive_buffer.take_all()

    def request(self, message: str | bytes, retries: int) -> Operation[bytes]:
        """A line out, a line in; or a message out, a message in."""
        if not self.datagrams:
            yield from self.send_line(message, read_while_sending=MAX_READ_WHILE_SENDING)
            return (yield from self.receive_line())
        # What came before the question is the late or second answer to an earlier one.
        while self.try_receive():
            pass
        self.receive_buffer.take_all()
        for seconds in retry_timeouts(self.timeout, retries):
            yield from self.send_line(message)
            if (yield from self._try_fill("waiting for an answer", seconds)):
                return self.receive_buffer.take(MAX_MESSAGE) or b""
        self._raise_timeout("waiting for an answer", NO_REPLY_HINT)

    def exchange(self, data: bytes) -> Operation[bytes]:
        """Send all, finish, and give everything until the peer's EOF; both directions move at once."""
        self._require_half_close("exchange")
        yield from self.send(data, read_while_sending=1 << 62)
        self.half_close()
        return (yield from self.receive_all())

    def half_close(self) -> None:
        """Close the sending side: the peer reads EOF, and can still answer."""
        self._require_half_close("finish")
        if self.write_closed:
            return
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise translate_oserror(error, "finishing", self.label, datagrams=False) from error
        self.write_closed = True
        if self.watcher is not None:
            self.watcher("sent", b"")

    def _fill(self, doing: str) -> Operation[None]:
        if not (yield from self._try_fill(doing, self.timeout)):
            self._raise_timeout(doing)

    def _try_fill(self, doing: str, timeout: float | None) -> Operation[bool]:
        with self._exclusive("receiving"):
            while not self.try_receive(doing):
                if not (yield Wait(read=True, write=self.has_unsent, timeout=timeout)):
                    return False
            return True

    def _require_no_eof(self, doing: str) -> None:
        if self.receive_buffer.eof_received:
            raise ConnectionLost(self.label, doing)

    def _on_received(self, data: bytes) -> None:
        if self.watcher is not None:
            self.watcher("received", data)
        self.receive_buffer.feed(data)

    def _require_half_close(self, verb: str) -> None:
        if self.datagrams:
            raise UnsupportedCombination(verb, self.label, "a datagram socket has no end")

    def _raise_timeout(self, doing: str, hint: str = "") -> NoReturn:
        raise TimeoutExpired(self.label, doing, self.timeout or 0.0, hint)

    @contextmanager
    def _exclusive(self, doing: str) -> Iterator[None]:
        if doing in self._in_progress:
            raise UnsupportedCombination(
                "one connection", f"two at once who are {doing}", "each would get a part of it"
            )
        self._in_progress.add(doing)
        try:
            yield
        finally:
            self._in_progress.discard(doing)


class BaseConnection:
    """What a connection has and does without waiting, whoever waits for the rest.

    `endpoint` is what was connected to; `local` and `peer` are the addresses of both ends; `steps` are
    the verbs, for whoever drives them himself.
    """

    def __init__(self, sock: socket.socket, endpoint: Endpoint, timeout: float | None, limit: int) -> None:
        self.endpoint = endpoint
        self.core = ConnectionCore(sock, endpoint, timeout, limit)
        self.local = Address.from_sockaddr(sock.family, sock.getsockname())
        try:
            self.peer = Address.from_sockaddr(sock.family, sock.getpeername())
        except OSError:  # it has gone already; the first read will say so
            self.peer = Address("none")

    @property
    def socket(self) -> socket.socket:
        """The socket itself, non-blocking: for its options, and for `misbehave`."""
        return self.core.socket

    @property
    def timeout(self) -> float | None:
        """The longest wait for the peer in seconds, None for no limit."""
        return self.core.timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self.core.timeout = seconds

    def half_close(self) -> None:
        """Close the sending side (shutdown, SHUT_WR): the peer reads EOF and can still answer. Idempotent.

        Raises:
            ConnectionLost: the connection is gone already.
            CannotCarry: a datagram socket has no end.
        """
        self.core.half_close()

    def close(self) -> None:
        """Close both sides. Idempotent."""
        self.core.socket.close()
