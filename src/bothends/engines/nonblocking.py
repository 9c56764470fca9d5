"""One connection on a non-blocking socket.

Connects a ConversationDriver to a non-blocking socket, for every engine whose event loop reports ready
descriptors: select, poll and epoll, and asyncio for the socket families that its transports do not support.

    reading ──peer's EOF or service done──> flushing ──all sent──> lingering ──peer's EOF──> closed
       └──────────────────── reset, limit, abort: from any state ─────────────────────────────┘

What the kernel does, and what follows:

1. send() takes as much as fits into the socket's send buffer, which may be less than it was given, or nothing
   (EAGAIN). The rest is queued here, and POLLOUT is requested only while the queue is not empty.
2. If a peer does not read, its receive buffer fills, then this socket's send buffer, then the queue. Above
   `limits.unsent` nothing more is read from the peer, so its sends block in turn: the backpressure reaches
   its cause, and the memory for each connection stays bounded.
3. close() with unread input makes the kernel send RST, which can destroy the last reply on its way. So only
   the sending direction is shut down, and input is read and discarded until the peer's EOF, for at most
   `limits.linger` seconds.
4. After its FIN a peer can still read: EOF ends the peer's sending direction only.
"""

from __future__ import annotations

import collections
import errno
import socket
from select import POLLIN, POLLOUT
from typing import Final, Protocol

from bothends.engines.base import DRAIN_IDLE, EngineContext
from bothends.engines.driver import ConversationDriver
from bothends.errors import MessageTooLong
from bothends.events import CloseReason
from bothends.services.base import Peer, discard_push
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


class ConnectionLoop(Protocol):
    """The event loop, as a NonblockingConnection sees it."""

    @property
    def now(self) -> float:
        """Seconds on the loop's clock, read once in each iteration."""

    def update_interest(self, connection: NonblockingConnection) -> None:
        """Watch the connection for the events in `connection.interest`, which has changed."""

    def schedule(self, connection: NonblockingConnection, deadline: float) -> None:
        """Call `connection.on_timer(now)` at `deadline` or soon after."""

    def connection_closed(self, connection: NonblockingConnection) -> None:
        """Called just before the connection closes its socket: stop watching it."""


class NonblockingConnection:
    """One connection of an event loop that reports ready descriptors."""

    __slots__ = (
        "_closed",
        "_last_activity",
        "_last_received",
        "_limits",
        "_linger_until",
        "_loop",
        "_opened_at",
        "_peer_eof",
        "_pending_abort",
        "_read_paused_until",
        "_read_size",
        "_write_queue",
        "driver",
        "interest",
        "slot",
        "socket",
        "write_buffer_size",
    )

    def __init__(
        self,
        loop: ConnectionLoop,
        context: EngineContext,
        listener: Listener,
        connection: socket.socket,
        peer: Peer,
    ) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.interest = POLLIN
        self.write_buffer_size = 0
        self.slot: int | None = None
        self._loop = loop
        self._opened_at = loop.now
        self._last_received = loop.now
        self._last_activity = loop.now  # when data was last received or sent
        self._limits = context.limits
        # With a rate limit, one read takes at most one second's worth.
        self._read_size = min(context.limits.chunk, context.limits.rate or context.limits.chunk)
        self._write_queue: collections.deque[memoryview | bytes] = collections.deque()
        self._peer_eof = False
        self._read_paused_until: float | None = None
        self._linger_until: float | None = None
        self._pending_abort: CloseReason | None = None
        self._closed = False
        self.driver = ConversationDriver(
            context, listener, peer, self._push if context.service.pushes else discard_push
        )

    def start(self) -> None:
        """Start the conversation. Call once the loop watches the connection."""
        deadline = self._next_deadline(self._opened_at)
        if deadline is not None:
            self._loop.schedule(self, deadline)
        self._write(self.driver.start())

    @property
    def last_activity(self) -> float:
        """When data was last received or sent, on the loop's clock."""
        return self._last_activity

    # Called by the loop ----------------------------------------------------------------------

    def on_ready(self, ready: int) -> None:
        """Handle the socket's events: POLLIN, POLLOUT, and errors (POLLERR, POLLHUP).

        The next read reports an error, or after the peer's EOF the next write.
        """
        if ready & ~POLLOUT and not (self._peer_eof and self._linger_until is None):
            self._on_readable()
        if ready & ~POLLIN and not self._closed:
            self._on_writable()

    def on_timer(self, now: float) -> float | None:
        """Apply the time limits. Returns the next deadline, or None if there is none."""
        if self._closed:
            return None
        if self._pending_abort is not None:
            self.close(self._pending_abort)
            return None
        if self._linger_until is not None:
            if now >= self._linger_until:
                self.close()
                return None
            return self._linger_until
        if self._read_paused_until is not None and now >= self._read_paused_until:
            self._read_paused_until = None
            self._update_interest()
            if self._closed:
                return None
        limit = self.driver.next_limit(self._opened_at, self._last_activity)
        if limit is not None and now >= limit[0]:
            self._time_out(limit[1])
            return self._linger_until
        return self._next_deadline(now)

    def _next_deadline(self, now: float) -> float | None:
        limit = self.driver.next_deadline(self._opened_at, self._last_activity, now)
        return min((each for each in (limit, self._read_paused_until) if each is not None), default=None)

    def drain(self, last_check: float) -> None:
        """Close the connection if it is idle, because the server is draining.

        `last_check` is when the loop last checked: all data that had arrived by then has been read.
        """
        if self._linger_until is not None or last_check - self._last_received < DRAIN_IDLE:
            return
        # A pull producer has unsent data until it is stopped, so it is stopped here.
        if not self.write_buffer_size or self.driver.wants_pull:
            self._stop_reading(CloseReason.DRAINED)

    def close(self, cause: CloseReason | None = None) -> None:
        """Close the connection now. With a cause other than RESET, send RST and drop unsent data."""
        if self._closed:
            return
        self._closed = True
        if cause is not None and cause is not CloseReason.RESET:
            reset_on_close(self.socket)
        self._loop.connection_closed(self)
        self.socket.close()
        self._write_queue.clear()
        self.driver.close(cause)

    # Reading ---------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            if self.driver.peer.message_oriented:
                data = self._read_message()
            else:
                data = self.socket.recv(self._read_size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._connection_lost(error)
            return
        self._last_received = self._last_activity = self._loop.now
        if self._linger_until is not None:
            if not data:
                self.close()
        elif data:
            reply = self.driver.receive(data)
            if self.driver.read_pause:
                self._read_paused_until = self._loop.now + self.driver.read_pause
                self._loop.schedule(self, self._read_paused_until)
            self._write(reply)
        else:
            self._peer_eof = True
            self._write(self.driver.receive_eof())

    def _read_message(self) -> bytes:
        max_size = self._limits.message or MAX_PACKET_SIZE
        data, _, flags, _ = self.socket.recvmsg(max_size)
        if flags & socket.MSG_TRUNC:
            self.driver.fail(MessageTooLong(max_size, len(data) + 1))
            self._peer_eof = True
            return b""
        return data

    # Writing ---------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if data:
            if self._write_queue:
                self._enqueue(data)
            else:
                self._send(data)
        self._update_interest()

    def _send(self, data: bytes | memoryview) -> bool:
        """Send as much as the kernel takes, and queue the rest. Returns whether everything was sent."""
        try:
            count = self.socket.send(data, socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            self._enqueue(data)
            return False
        except OSError as error:
            self._connection_lost(error)
            return False
        self._last_activity = self._loop.now
        if count == len(data):
            self.driver.bytes_sent(data)
            return True
        view = memoryview(data)
        self.driver.bytes_sent(view[:count])
        self._enqueue(view[count:])
        return False

    def _enqueue(self, data: bytes | memoryview) -> None:
        self._write_queue.append(data)
        self.write_buffer_size += len(data)

    def _on_writable(self) -> None:
        queue = self._write_queue
        while queue and not self._closed:
            data = queue.popleft()
            self.write_buffer_size -= len(data)
            if not self._send(data):
                if queue and not self._closed:
                    queue.rotate(1)  # _send() appended the rest, which belongs in front
                break
        self._update_interest()

    def _update_interest(self) -> None:
        """Call the pull producer, shut down, or update the watched events. Called after every step."""
        if self._closed or self._linger_until is not None:
            return
        driver = self.driver
        pulling = False
        if driver.wants_pull and not self._write_queue and (data := driver.produce()):
            # One piece in each iteration, so that a fast reader does not monopolize the loop.
            pulling = True
            self._send(data)
            if self._closed:
                return
        if driver.finished and not self._write_queue:
            self._shutdown_write()
            return
        interest = 0
        read_paused = self._read_paused_until is not None
        if (
            not (self._peer_eof or driver.finished or read_paused)
            and self.write_buffer_size <= self._limits.unsent
        ):
            interest = POLLIN
        if pulling or self._write_queue:
            interest |= POLLOUT
        if interest != self.interest:
            self.interest = interest
            self._loop.update_interest(self)

    def _shutdown_write(self) -> None:
        """Everything is sent: close, or half-close and wait for the peer's EOF (fact 3)."""
        if self._peer_eof:
            self.close()
            return
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._connection_lost(error)
            return
        self._linger_until = self._loop.now + self._limits.linger
        self._loop.schedule(self, self._linger_until)
        self.interest = POLLIN
        self._loop.update_interest(self)

    # Pushes and early ends -------------------------------------------------------------------

    def _push(self, data: bytes) -> None:
        # Queued, not sent at once, because a failed send would close this conversation, which may push to
        # another one whose peer is gone as well, and so on: the recursion would be as deep as there are
        # members.
        if self._closed or self._pending_abort is not None or self._linger_until is not None or not data:
            return
        self._enqueue(data)
        if self.write_buffer_size > self._limits.posted:
            self._pending_abort = CloseReason.STALLED
            self._loop.schedule(self, self._loop.now)
        elif not self.interest & POLLOUT:
            self.interest |= POLLOUT
            self._loop.update_interest(self)

    def _time_out(self, cause: CloseReason) -> None:
        """A time limit has expired: let the conversation send final data, unless the peer does not read."""
        if self.write_buffer_size:
            self.close(cause)
        else:
            self._stop_reading(cause)

    def _stop_reading(self, cause: CloseReason) -> None:
        """Stop reading, send the conversation's final data, and shut down."""
        self._write(self.driver.stop_reading(cause))
        self.driver.finished = True
        self._update_interest()

    def _connection_lost(self, error: OSError) -> None:
        if error.errno in CONNECTION_LOST:
            self.close(CloseReason.RESET)
        else:
            self.driver.fail(error)
            self.close(CloseReason.FAILED)
