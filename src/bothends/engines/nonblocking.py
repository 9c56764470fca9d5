"""One connection on a non-blocking socket.

Connects a ConversationDriver to a non-blocking socket, for every engine whose event loop reports ready
descriptors: select, poll and epoll, and asyncio for the socket families that its transports do not support.
The states and limits are those of `connection_state.py`; this module moves the bytes.

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
from select import POLLERR, POLLHUP, POLLIN, POLLOUT
from typing import Final, Protocol

from bothends.engines.base import EngineContext
from bothends.engines.connection_state import AT_EOF, Action, ConnectionState, State
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
        "_limits",
        "_loop",
        "_message_oriented",
        "_pending_abort",
        "_read_size",
        "_started",
        "_write_queue",
        "core",
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
        self._message_oriented = peer.message_oriented
        self._limits = context.limits
        # With a rate limit, one read takes at most one second's worth.
        self._read_size = min(context.limits.chunk, context.limits.rate or context.limits.chunk)
        self._write_queue: collections.deque[memoryview | bytes] = collections.deque()
        self._pending_abort: CloseReason | None = None
        self._closed = False
        self._started = False
        self.driver = ConversationDriver(
            context, listener, peer, self._push if context.service.pushes else discard_push
        )
        self.core = ConnectionState(self.driver, context.limits, loop.now)

    def start(self) -> None:
        """Start the conversation. Call once the loop watches the connection."""
        self._started = True
        self._schedule()
        self._write(self.driver.start())

    @property
    def last_activity(self) -> float:
        """When data was last received or sent, on the loop's clock."""
        return self.core.last_activity

    # Called by the loop ----------------------------------------------------------------------

    def on_ready(self, ready: int) -> None:
        """Handle the socket's events: POLLIN, POLLOUT, and errors (POLLERR, POLLHUP)."""
        if ready & ~POLLOUT and self.core.state not in AT_EOF:
            self._on_readable()
            if ready == POLLIN:
                return
        elif ready & (POLLERR | POLLHUP) and not self._write_queue:
            self._lose(OSError(errno.ECONNRESET, "the connection was closed"))
        if ready & ~POLLIN and not self._closed:
            self._on_writable()

    def on_timer(self, now: float) -> float | None:
        """Apply the time limits. Returns the next deadline, or None if there is none."""
        if self._closed:
            return None
        if self._pending_abort is not None:
            self.close(self._pending_abort)
            return None
        self._write(self.core.expire(now, self.write_buffer_size))
        return self.core.next_deadline(now)

    def drain(self, last_check: float) -> None:
        """See ConnectionState.drain."""
        self._write(self.core.drain(last_check, self.write_buffer_size))

    def close(self, cause: CloseReason) -> None:
        """End the connection now."""
        self.core.abort(cause)
        self._settle()

    # Reading ---------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            data = self._read_message() if self._message_oriented else self.socket.recv(self._read_size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        if data:
            core = self.core
            reply = core.receive(data, self._loop.now)
            if core.paused_until is not None:
                self._schedule()
            self._write(reply)
        elif data is not None:
            self._write(self.core.receive_eof(self._loop.now))
        else:
            self._settle()

    def _read_message(self) -> bytes | None:
        """Return a message, or None if it was too long, which ends the conversation."""
        max_size = self._limits.message or MAX_PACKET_SIZE
        data, _, flags, _ = self.socket.recvmsg(max_size)
        if not flags & socket.MSG_TRUNC:
            return data
        if not self.driver.finished:
            self.driver.fail(MessageTooLong(max_size, len(data) + 1))
        return None

    # Writing ---------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if data:
            if self._write_queue:
                self._enqueue(data)
            elif self._send(data) and self.interest == POLLIN and self.core.paused_until is None:
                driver = self.driver
                if not (driver.finished or driver.wants_pull):
                    return  # everything is sent, and nothing else has changed
        self._settle()

    def _send(self, data: bytes | memoryview) -> bool:
        """Send as much as the kernel takes, and queue the rest. Returns whether everything was sent."""
        try:
            count = self.socket.send(data, socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            self._enqueue(data)
            return False
        except OSError as error:
            self._lose(error)
            return False
        self.core.last_activity = self._loop.now
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
        self._settle()

    def _settle(self) -> None:
        """Call the pull producer, do what the core says, and watch for the events it waits for."""
        if self._closed:
            return
        core = self.core
        pulling = False
        if self.driver.wants_pull and not self._write_queue and (data := core.produce()):
            # One piece in each iteration, so that a fast reader does not monopolize the loop.
            pulling = True
            self._send(data)
            if self._closed:
                return
        action = core.settle(self._loop.now, self.write_buffer_size)
        if action is not Action.NONE:
            self._act(action)
            if self._closed:
                return
        interest = POLLIN if core.wants_read else 0
        if self._write_queue or (pulling and core.state <= State.STOPPED):
            interest |= POLLOUT
        if interest != self.interest:
            self.interest = interest
            self._loop.update_interest(self)

    def _act(self, action: Action) -> None:
        if action is Action.SHUTDOWN:
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError as error:
                self._lose(error)
            else:
                self._schedule()
            return
        self._closed = True
        if action is Action.RESET:
            reset_on_close(self.socket)
        self._loop.connection_closed(self)
        self.socket.close()
        self._write_queue.clear()
        self.core.closed()

    def _schedule(self) -> None:
        deadline = self.core.next_deadline(self._loop.now)
        if deadline is not None:
            self._loop.schedule(self, deadline)

    def _lose(self, error: OSError) -> None:
        if error.errno in CONNECTION_LOST:
            self.core.lose(CloseReason.RESET)
        else:
            self.driver.fail(error)
            self.core.abort(CloseReason.FAILED)
        self._act(self.core.settle(self._loop.now, 0))

    # Pushes ----------------------------------------------------------------------------------

    def _push(self, data: bytes) -> None:
        # Queued, not sent at once, because a failed send would close this conversation, which may push to
        # another one whose peer is gone as well, and so on: the recursion would be as deep as there are
        # members.
        if not data:
            return
        if not self._started:  # pushed while the conversation is being opened
            self._enqueue(data)
            return
        if self._pending_abort is not None or not self.core.wants_push:
            return
        self._enqueue(data)
        if self.write_buffer_size > self._limits.posted:
            self._pending_abort = CloseReason.STALLED
            self._loop.schedule(self, self._loop.now)
        elif not self.interest & POLLOUT:
            self.interest |= POLLOUT
            self._loop.update_interest(self)
