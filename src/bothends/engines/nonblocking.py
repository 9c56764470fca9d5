"""One connection on a non-blocking socket.

Moves the bytes of a connection (`loop_connection.py`) for every engine whose event loop reports ready
descriptors: select, poll and epoll, and asyncio for the socket families that its transports do not support.

What the kernel does, and what follows:

1. send() takes as much as fits into the socket's send buffer, which may be less than it was given, or nothing
   (EAGAIN). The rest is queued here, and POLLOUT is requested only while the queue is not empty.
2. If a peer does not read, its receive buffer fills, then this socket's send buffer, then the queue.
3. After its FIN a peer can still read: EOF ends the peer's sending direction only.
4. POLLERR and POLLHUP are reported whatever was asked for (poll(2)). The next read or write returns the
   error; if the connection is neither read nor written now, it is broken.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import socket
from abc import abstractmethod
from collections.abc import Callable
from select import POLLERR, POLLHUP, POLLIN, POLLOUT
from typing import Final, Protocol, TypeAlias

from bothends.engines.base import EngineContext
from bothends.engines.connection_state import AT_EOF, OPEN
from bothends.engines.loop_connection import ConnectionLoop, LoopConnection
from bothends.errors import MessageTooLong
from bothends.events import CloseReason
from bothends.services.base import Peer
from bothends.sockets import Listener
from bothends.sockets.options import reset_on_close

# Bytes: larger than any message that a SOCK_SEQPACKET socket with default buffers can send
# (net.core.wmem_default is 212,992).
MAX_PACKET_SIZE: Final = 256 * 1024

# Bytes of the first reads of a connection: recv() allocates what it is asked for, and Python's own allocator,
# which is faster than malloc(), has objects of up to 512 bytes. Of these 33 are not data.
SMALL_READ: Final = 479

# Errors of send() and recv() that mean that the peer, or the route to it, is gone.
CONNECTION_LOST: Final = frozenset(
    {
        errno.ECONNRESET,
        errno.EPIPE,
        errno.ECONNABORTED,
        errno.ENOTCONN,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EHOSTDOWN,
        errno.ESHUTDOWN,
    }
)


_NO_SIGNAL: Final = int(socket.MSG_NOSIGNAL)


# Called with the events of a ready descriptor, in the bits of poll().
Handler: TypeAlias = Callable[[int], object]


class DescriptorLoop(ConnectionLoop, Protocol):
    """The event loop, as a NonblockingConnection sees it."""

    @abstractmethod
    def watch(self, descriptor: int, handler: Handler, interest: int, /) -> None:
        """Call `handler` with the events whenever the descriptor is ready for those in `interest`.

        Replaces what it was watched for before.
        """

    @abstractmethod
    def unwatch(self, descriptor: int, /) -> None:
        """Stop watching a descriptor, before it is closed. Does nothing if it is not watched."""


class NonblockingConnection(LoopConnection):
    """One connection of an event loop that reports ready descriptors."""

    __slots__ = (
        "_max_message",
        "_max_read",
        "_message_oriented",
        "_read_size",
        "_write_queue",
        "interest",
        "socket",
        "unsent",
    )

    unsent: int
    _loop: DescriptorLoop

    def __init__(
        self,
        loop: DescriptorLoop,
        context: EngineContext,
        listener: Listener,
        connection: socket.socket,
        peer: Peer,
    ) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.interest = POLLIN
        self.unsent = 0
        self._message_oriented = peer.message_oriented
        self._max_message = context.limits.message or MAX_PACKET_SIZE
        # With a rate limit, one read takes at most one second's worth.
        self._max_read = min(context.limits.chunk, context.limits.rate or context.limits.chunk)
        self._read_size = min(self._max_read, SMALL_READ)
        self._write_queue: collections.deque[memoryview | bytes] = collections.deque()
        super().__init__(loop, context, listener, peer)

    def start(self) -> None:
        """Watch the connection, and start the conversation."""
        self._update_interest(POLLIN)
        super().start()

    @property
    def is_closing(self) -> bool:
        return self.socket.fileno() < 0

    # Reading and writing ---------------------------------------------------------------------

    def on_ready(self, ready: int, data: bytes | memoryview = b"") -> None:
        """Handle the socket's events: read once, then send the reply, or what is queued.

        Both directions in one function, because most chunks are read, answered and sent, and that is all.

        Args:
            ready: POLLIN, POLLOUT, POLLERR and POLLHUP; POLLOUT alone to send.
            data: to send, if nothing is read.
        """
        core, driver, queue = self.core, self.driver, self._write_queue
        now = self._loop.now
        if ready != POLLOUT and (core.state is OPEN or core.state not in AT_EOF):
            try:
                if self._message_oriented:
                    chunk = self._read_message()
                else:
                    chunk = self.socket.recv(self._read_size)
                    if len(chunk) == self._read_size:
                        chunk = self._read_rest(chunk)
            except (BlockingIOError, InterruptedError):
                chunk = None
            except OSError as error:
                self._lose(error)
                return
            if chunk:
                if driver.watched or core.state is not OPEN:
                    data = core.receive(chunk, now)
                else:  # the same, without two calls that would have nothing else to do
                    driver.last_received = now
                    conversation = driver.conversation
                    try:
                        data = conversation.receive(chunk)
                    except Exception as error:
                        data = driver.fail(error)
                    if conversation.done:
                        driver.conversation_done()
            elif chunk is not None:
                data = core.receive_eof(now)
        elif ready & (POLLERR | POLLHUP) and not queue:
            self._lose(OSError(errno.ECONNRESET, "the connection was closed"))
            return
        if queue:
            self._enqueue(data)
            data = self._dequeue()
        while data:
            try:
                count = self.socket.send(data, _NO_SIGNAL)
            except (BlockingIOError, InterruptedError):
                self._put_back(data)
                break
            except OSError as error:
                self._lose(error)
                return
            core.last_sent = now
            if driver.watched:
                driver.bytes_sent(data[:count])
            if count < len(data):
                self._put_back(memoryview(data)[count:])
                break
            if not queue:
                break
            data = self._dequeue()
        if (
            ready != POLLIN
            or queue
            or driver.finished
            or (driver.watched and (driver.wants_pull or driver.paused_until is not None))
        ):
            self._settle()

    def _read_rest(self, chunk: bytes) -> bytes:
        """Return a chunk with what else has arrived, up to the maximum size. Later reads are of that size."""
        rest = self._max_read - len(chunk)
        self._read_size = self._max_read
        if rest:
            with contextlib.suppress(BlockingIOError):
                chunk += self.socket.recv(rest)
        return chunk

    def _read_message(self) -> bytes | None:
        """Return a message, or None if it was too long, which ends the conversation."""
        data, _, flags, _ = self.socket.recvmsg(self._max_message)
        if not flags & socket.MSG_TRUNC:
            return data
        if not self.driver.finished:
            self.driver.fail(MessageTooLong(self._max_message, len(data) + 1))
        return None

    def _write(self, data: bytes) -> None:
        self.on_ready(POLLOUT, data)

    def _enqueue(self, data: bytes | memoryview) -> None:
        if data:
            self._write_queue.append(data)
            self.unsent += len(data)

    def _dequeue(self) -> bytes | memoryview:
        data = self._write_queue.popleft()
        self.unsent -= len(data)
        return data

    def _put_back(self, rest: bytes | memoryview) -> None:
        self._write_queue.appendleft(rest)
        self.unsent += len(rest)

    def _queue(self, data: bytes) -> None:
        # Not sent at once, because a failed send would close this conversation, which may push to another one
        # whose peer is gone as well, and so on: the recursion would be as deep as there are members.
        self._enqueue(data)
        if not self.interest & POLLOUT:
            self._update_interest(self.interest | POLLOUT)

    # The socket ------------------------------------------------------------------------------

    def _send_fin(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lose(error)

    def _close_socket(self, *, reset: bool) -> None:
        if reset:
            reset_on_close(self.socket)
        self._loop.unwatch(self.socket.fileno())
        self._write_queue.clear()
        self.unsent = 0
        self.socket.close()
        self._loop.connection_closed(self)
        self.core.closed()

    def _watch(self, *, produced: bool) -> None:
        interest = POLLIN if self.core.wants_read else 0
        if self._write_queue or produced:
            interest |= POLLOUT
        if interest != self.interest:
            self._update_interest(interest)

    def _update_interest(self, interest: int) -> None:
        self.interest = interest
        self._loop.watch(self.socket.fileno(), self.on_ready, interest)

    def _lose(self, error: OSError) -> None:
        if error.errno in CONNECTION_LOST:
            self.core.lose(CloseReason.RESET)
        else:
            self.driver.fail(error)
            self.core.abort(CloseReason.FAILED)
        self._settle()
