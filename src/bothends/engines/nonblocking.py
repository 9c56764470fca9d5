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
import errno
import socket
from collections.abc import Callable
from select import POLLERR, POLLHUP, POLLIN, POLLOUT
from typing import Final, Protocol

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


class DescriptorLoop(ConnectionLoop, Protocol):
    """The event loop, as a NonblockingConnection sees it."""

    def watch(self, descriptor: int, handler: Callable[[int], object], interest: int, /) -> None:
        """Call `handler` with the events whenever the descriptor is ready for those in `interest`.

        Replaces what it was watched for before.
        """

    def unwatch(self, descriptor: int, /) -> None:
        """Stop watching a descriptor. Called before it is closed."""


class NonblockingConnection(LoopConnection):
    """One connection of an event loop that reports ready descriptors."""

    __slots__ = (
        "_max_message",
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
        self._read_size = min(context.limits.chunk, context.limits.rate or context.limits.chunk)
        self._write_queue: collections.deque[memoryview | bytes] = collections.deque()
        super().__init__(loop, context, listener, peer)

    def start(self) -> None:
        """Watch the connection, and start the conversation."""
        self._update_interest(POLLIN)
        super().start()

    @property
    def is_closing(self) -> bool:
        """See LoopConnection."""
        return self.socket.fileno() < 0

    # Reading ---------------------------------------------------------------------------------

    def on_ready(self, ready: int) -> None:
        """Handle the socket's events: POLLIN, POLLOUT, and errors (POLLERR, POLLHUP)."""
        core = self.core
        if ready != POLLOUT and (core.state is OPEN or core.state not in AT_EOF):
            try:
                data = self._read_message() if self._message_oriented else self.socket.recv(self._read_size)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                self._lose(error)
            else:
                if data:
                    now = self._loop.now
                    if core.state is OPEN:
                        reply = self.driver.receive(data, now)
                    else:
                        reply = core.receive(data, now)
                    if not (reply and self._send(reply, now)):
                        self._settle()
                elif data is not None:
                    self._write(core.receive_eof(self._loop.now))
                else:
                    self._settle()
        elif ready & (POLLERR | POLLHUP) and not self._write_queue:
            self._lose(OSError(errno.ECONNRESET, "the connection was closed"))
        if ready != POLLIN:
            self._on_writable()

    def _read_message(self) -> bytes | None:
        """Return a message, or None if it was too long, which ends the conversation."""
        data, _, flags, _ = self.socket.recvmsg(self._max_message)
        if not flags & socket.MSG_TRUNC:
            return data
        if not self.driver.finished:
            self.driver.fail(MessageTooLong(self._max_message, len(data) + 1))
        return None

    # Writing ---------------------------------------------------------------------------------

    def _send(self, data: bytes | memoryview, now: float) -> bool:
        """See LoopConnection. Does not overtake what is queued."""
        if self._write_queue:
            self._enqueue(data)
            return False
        try:
            count = self.socket.send(data, _NO_SIGNAL)
        except (BlockingIOError, InterruptedError):
            self._enqueue(data)
            return False
        except OSError as error:
            self._lose(error)
            return False
        self.core.last_sent = now
        driver = self.driver
        driver.sent += count
        if count == len(data):
            if driver.watched:
                driver.emit_sent(data)
            return self.interest == POLLIN and not (
                driver.finished or driver.wants_pull or driver.paused_until is not None
            )
        view = memoryview(data)
        if driver.watched:
            driver.emit_sent(view[:count])
        self._enqueue(view[count:])
        return False

    def _enqueue(self, data: bytes | memoryview) -> None:
        self._write_queue.append(data)
        self.unsent += len(data)

    def _on_writable(self) -> None:
        queued, self._write_queue = self._write_queue, collections.deque()
        while queued and not (self._write_queue or self.is_closing):
            data = queued.popleft()
            self.unsent -= len(data)
            self._send(data, self._loop.now)
        queued.extendleft(self._write_queue)  # what the kernel did not take of the last one
        self._write_queue = queued
        self._settle()

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
