"""One connection that never blocks: bytes in when there are some, bytes out as far as they go.

The driver between an Exchange and a non-blocking socket, for every engine that is told when a
descriptor is ready (select, poll, epoll; asyncio where its transports don't carry the family).

    reading ──peer's EOF or service done──> saying ──all said──> lingering ──peer's EOF──> closed
       └──────────────────── reset, limit, abort: from any state ────────────────────────────┘

What the kernel does, and what follows:

1. send() takes what fits into the socket's buffer, which may be less than was given or nothing
   (EAGAIN). What is left is queued here, and writability is asked for only while it is.
2. A peer that doesn't read fills its receive buffer, then our send buffer, then our queue. Above
   `limits.unsent` we stop reading from it, so its sends block in turn: the pressure reaches whoever
   causes it, and our memory for it stays bounded.
3. close() with unread input makes the kernel send RST, which can destroy our last answer while it
   is still on its way. So we shut down our side only, and read and discard until the peer's EOF,
   `limits.linger` seconds at the most.
4. After its FIN a peer can still read: EOF ends what it says, not what we say.
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

# Larger than any message that a SOCK_SEQPACKET socket with default buffers can send
# (net.core.wmem_default is 212,992 bytes).
MAX_PACKET_SIZE: Final = 256 * 1024

# What a send or a receive answers when the peer, or the way to it, is gone.
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
    """What a channel needs of the loop that runs it."""

    @property
    def now(self) -> float:
        """Seconds on the loop's clock, as of this turn."""

    def update_interest(self, connection: NonblockingConnection) -> None:
        """`channel.interest` has changed."""

    def schedule(self, connection: NonblockingConnection, deadline: float) -> None:
        """Call `channel.on_timer(now)` at `due` or soon after."""

    def connection_closed(self, connection: NonblockingConnection) -> None:
        """The channel is about to close its socket: forget it."""


class NonblockingConnection:
    """One connection of an engine that waits for readiness."""

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
        self._last_received = self._last_activity = (
            loop.now
        )  # when something last arrived; when anything last moved
        self._limits = context.limits
        # No more at once than may be read in a second.
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
        """The loop knows the channel now: let the conversation begin."""
        due = self._next_deadline(self._opened_at)
        if due is not None:
            self._loop.schedule(self, due)
        self._write(self.driver.start())

    # What the loop calls ---------------------------------------------------------------------

    def on_ready(self, ready: int) -> None:
        """The socket is ready: POLLIN, POLLOUT, or an error (POLLERR, POLLHUP), which reading,
        or where we don't read any more, writing will meet."""
        if ready & ~POLLOUT and not (self._peer_eof and self._linger_until is None):
            self._on_readable()
        if ready & ~POLLIN and not self._closed:
            self._on_writable()

    def on_timer(self, now: float) -> float | None:
        """Look at the limits; return when to look again."""
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
        look = self.driver.next_deadline(self._opened_at, self._last_activity, now)
        looks = [each for each in (look, self._read_paused_until) if each is not None]
        return min(looks, default=None)

    def drain(self, last_check: float) -> None:
        """The server is leaving: finish this talk if it rests. What came before `looked` has been heard."""
        if self._linger_until is not None or last_check - self._last_received < DRAIN_IDLE:
            return
        # To who pulls, something is owed for as long as it is not told to end.
        if not self.write_buffer_size or self.driver.wants_pull:
            self._stop_reading(CloseReason.DRAINED)

    def close(self, cause: CloseReason | None = None) -> None:
        """End it now. With a cause: the talk was cut off, and what is unsent is dropped."""
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
            said = self.driver.receive(data)
            if self.driver.read_pause:
                self._read_paused_until = self._loop.now + self.driver.read_pause
                self._loop.schedule(self, self._read_paused_until)
            self._write(said)
        else:
            self._peer_eof = True
            self._write(self.driver.receive_eof())

    def _read_message(self) -> bytes:
        most = self._limits.message or MAX_PACKET_SIZE
        data, _, flags, _ = self.socket.recvmsg(most)
        if flags & socket.MSG_TRUNC:
            self.driver.fail(MessageTooLong(most, len(data) + 1))
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
        """Give the system what it takes and queue the rest; whether all went."""
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
                    queue.rotate(1)  # _send has put the rest at the end; it belongs in front
                break
        self._update_interest()

    def _update_interest(self) -> None:
        """After every step: pull more, hang up, or wait for what is wanted now."""
        if self._closed or self._linger_until is not None:
            return
        exchange = self.driver
        pulling = False
        if exchange.wants_pull and not self._write_queue and (data := exchange.produce()):
            # One piece a turn: a fast reader must not keep the loop from everybody else.
            pulling = True
            self._send(data)
            if self._closed:
                return
        if exchange.finished and not self._write_queue:
            self._shutdown_write()
            return
        interest = 0
        resting = self._read_paused_until is not None
        if (
            not (self._peer_eof or exchange.finished or resting)
            and self.write_buffer_size <= self._limits.unsent
        ):
            interest = POLLIN
        if pulling or self._write_queue:
            interest |= POLLOUT
        if interest != self.interest:
            self.interest = interest
            self._loop.update_interest(self)

    def _shutdown_write(self) -> None:
        """All is said and sent: close, or wait for the peer to close first (fact 3)."""
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

    # Ending otherwise ------------------------------------------------------------------------

    def _push(self, data: bytes) -> None:
        # Queued, never sent at once: a send may find the peer gone, and ending this conversation
        # can post to the next member, whose peer may be gone as well, and so on down the stack.
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
        """A time limit has passed: a last word to a peer that reads, none to one that doesn't."""
        if self.write_buffer_size:
            self.close(cause)
        else:
            self._stop_reading(cause)

    def _stop_reading(self, cause: CloseReason) -> None:
        """We read no more: the conversation's last word, then the end."""
        self._write(self.driver.stop_reading(cause))
        self.driver.finished = True
        self._update_interest()

    def _connection_lost(self, error: OSError) -> None:
        if error.errno in CONNECTION_LOST:
            self.close(CloseReason.RESET)
        else:
            self.driver.fail(error)
            self.close(CloseReason.FAILED)
