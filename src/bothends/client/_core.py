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

from bothends.client.receive_buffer import CHUNK, LARGEST, NO_ANSWER, Inbox, translated, waits
from bothends.client.tls import TlsSocket
from bothends.endpoints import Address, Endpoint
from bothends.errors import CannotCarry, ConnectionLost, TimeLimit
from bothends.hexdump import Direction

T = TypeVar("T")

# What is read along while a request is being sent. A peer that goes on answering beyond this, unread,
# has to wait, and memory stays bounded.
READ_ALONG: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Wait:
    """What a step waits for, and for how long: seconds, or None for as long as it takes."""

    read: bool
    write: bool
    seconds: float | None


Step: TypeAlias = Generator[Wait, bool, T]


class Steps:
    """The verbs of one connection. `timeout` bounds each wait: the longest silence, in seconds.

    `watch` is told of what each read and write moved; no data at all is the end of that direction, and on
    a datagram socket an empty datagram.
    """

    def __init__(self, sock: socket.socket, endpoint: Endpoint, timeout: float | None, limit: int) -> None:
        sock.setblocking(False)
        kind = sock.type
        self.socket = sock
        self.where = endpoint.label
        self.timeout = timeout
        self.datagrams = kind == socket.SOCK_DGRAM
        self.boundaries = self.datagrams or kind == socket.SOCK_SEQPACKET
        self.inbox = Inbox(boundaries=self.boundaries, datagrams=self.datagrams, limit=limit)
        self.finished = False
        self.watch: Callable[[Direction, bytes], None] | None = None
        self._chunk = LARGEST if self.boundaries else CHUNK
        self._busy: set[str] = set()

    def try_receive(self, doing: str = "receiving") -> bool:
        """Move one read's bytes into the inbox; False if there are none now."""
        try:
            data = self.socket.recv(self._chunk)
        except BlockingIOError:
            return False
        except OSError as error:
            raise translated(error, doing, self.where, datagrams=self.datagrams) from error
        self._received(data)
        if data and isinstance(self.socket, TlsSocket) and self.socket.ended:
            self._received(b"")  # close_notify came along, and poll() would not tell
        return True

    @property
    def owes(self) -> bool:
        """The socket has something left to send by itself: wait for room too, and then try to receive."""
        return isinstance(self.socket, TlsSocket) and self.socket.owes

    @property
    def half_closes(self) -> bool:
        """Whether `finish` is to be had: TLS 1.2 ends both directions or none."""
        return not isinstance(self.socket, TlsSocket) or self.socket.half_closes

    def try_send(self, data: bytes | memoryview) -> int | None:
        """Give the socket what it takes now (a message: all of it), or None if it takes nothing."""
        if self.finished:
            raise CannotCarry("this connection", "more", "its sending side was closed by finish()")
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            return None
        except OSError as error:
            raise translated(error, "sending", self.where, datagrams=self.datagrams) from error
        if self.watch is not None:
            self.watch("sent", bytes(data[:sent]))
        return sent

    def send(self, data: bytes | memoryview, *, read_along: int = 0) -> Step[None]:
        """Send all of it, as one message where the socket has boundaries.

        With `read_along` it reads meanwhile, until the inbox holds so many bytes: for a peer that will
        not take the rest before it has got rid of its answer to the beginning.
        """
        reads_too: AbstractContextManager[None] = self._alone("receiving") if read_along else nullcontext()
        with self._alone("sending"), reads_too:
            view = memoryview(data).cast("B")
            while True:
                sent = self.try_send(view)
                if sent is not None:
                    view = view[sent:]
                    if not view:
                        return
                    continue
                reads = self.inbox.size < read_along and not self.inbox.ended
                if reads and self.try_receive():
                    continue
                if not (yield Wait(read=reads, write=True, seconds=self.timeout)):
                    self._too_late("sending", "the peer does not read")

    def send_line(self, line: str | bytes, *, read_along: int = 0) -> Step[None]:
        """Send a message: with LF on a stream, bare where the socket has boundaries. Text becomes UTF-8."""
        data = line.encode() if isinstance(line, str) else line
        return self.send(data if self.boundaries else data + b"\n", read_along=read_along)

    def receive(self, size: int) -> Step[bytes]:
        """At most `size` bytes of a stream, b"" at the peer's EOF; or one message, whatever its size."""
        while (data := self.inbox.take(size)) is None:
            if self.inbox.ended:
                return b""
            yield from self._fill("receiving")
        return data

    def receive_line(self) -> Step[bytes]:
        """A line without its end, or one whole message."""
        doing = "waiting for an answer" if self.boundaries else "waiting for a line"
        while (line := self.inbox.take_line()) is None:
            self._more_can_come(doing)
            yield from self._fill(doing)
        return line

    def receive_exactly(self, size: int) -> Step[bytes]:
        """`size` bytes of a stream."""
        if self.boundaries:
            raise CannotCarry("receive_exactly", self.where, "its messages come whole", "use receive()")
        while (data := self.inbox.take_exactly(size)) is None:
            doing = f"waiting for {size} bytes ({self.inbox.size} came)"
            self._more_can_come(doing)
            yield from self._fill(doing)
        return data

    def receive_all(self) -> Step[bytes]:
        """Everything until the peer's EOF."""
        self._needs_an_end("receive_all")
        while not self.inbox.ended:
            yield from self._fill("waiting for the peer's EOF")
        return self.inbox.take_all()

    def request(self, message: str | bytes, retries: int) -> Step[bytes]:
        """A line out, a line in; or a message out, a message in."""
        if not self.datagrams:
            yield from self.send_line(message, read_along=READ_ALONG)
            return (yield from self.receive_line())
        # What came before the question is the late or second answer to an earlier one.
        while self.try_receive():
            pass
        self.inbox.take_all()
        for seconds in waits(self.timeout, retries):
            yield from self.send_line(message)
            if (yield from self._filled("waiting for an answer", seconds)):
                return self.inbox.take(LARGEST) or b""
        self._too_late("waiting for an answer", NO_ANSWER)

    def exchange(self, data: bytes) -> Step[bytes]:
        """Send all, finish, and give everything until the peer's EOF; both directions move at once."""
        self._needs_an_end("exchange")
        yield from self.send(data, read_along=1 << 62)
        self.finish()
        return (yield from self.receive_all())

    def finish(self) -> None:
        """Close the sending side: the peer reads EOF, and can still answer."""
        self._needs_an_end("finish")
        if self.finished:
            return
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise translated(error, "finishing", self.where, datagrams=False) from error
        self.finished = True
        if self.watch is not None:
            self.watch("sent", b"")

    def _fill(self, doing: str) -> Step[None]:
        if not (yield from self._filled(doing, self.timeout)):
            self._too_late(doing)

    def _filled(self, doing: str, seconds: float | None) -> Step[bool]:
        with self._alone("receiving"):
            while not self.try_receive(doing):
                if not (yield Wait(read=True, write=self.owes, seconds=seconds)):
                    return False
            return True

    def _more_can_come(self, doing: str) -> None:
        if self.inbox.ended:
            raise ConnectionLost(self.where, doing)

    def _received(self, data: bytes) -> None:
        if self.watch is not None:
            self.watch("received", data)
        self.inbox.put(data)

    def _needs_an_end(self, verb: str) -> None:
        if self.datagrams:
            raise CannotCarry(verb, self.where, "a datagram socket has no end")

    def _too_late(self, doing: str, hint: str = "") -> NoReturn:
        raise TimeLimit(self.where, doing, self.timeout or 0.0, hint)

    @contextmanager
    def _alone(self, doing: str) -> Iterator[None]:
        if doing in self._busy:
            raise CannotCarry("one connection", f"two at once who are {doing}", "each would get a part of it")
        self._busy.add(doing)
        try:
            yield
        finally:
            self._busy.discard(doing)


class Ends:
    """What a connection has and does without waiting, whoever waits for the rest.

    `endpoint` is what was connected to; `local` and `peer` are the addresses of both ends; `steps` are
    the verbs, for whoever drives them himself.
    """

    def __init__(self, sock: socket.socket, endpoint: Endpoint, timeout: float | None, limit: int) -> None:
        self.endpoint = endpoint
        self.steps = Steps(sock, endpoint, timeout, limit)
        self.local = Address.of(sock.family, sock.getsockname())
        try:
            self.peer = Address.of(sock.family, sock.getpeername())
        except OSError:  # it has gone already; the first read will say so
            self.peer = Address("none")

    @property
    def socket(self) -> socket.socket:
        """The socket itself, non-blocking: for its options, and for `misbehave`."""
        return self.steps.socket

    @property
    def timeout(self) -> float | None:
        """The longest wait for the peer in seconds, None for no limit."""
        return self.steps.timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self.steps.timeout = seconds

    def finish(self) -> None:
        """Close the sending side (shutdown, SHUT_WR): the peer reads EOF and can still answer. Idempotent.

        Raises:
            ConnectionLost: the connection is gone already.
            CannotCarry: a datagram socket has no end.
        """
        self.steps.finish()

    def close(self) -> None:
        """Close both sides. Idempotent."""
        self.steps.socket.close()
