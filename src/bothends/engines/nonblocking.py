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
import struct
from select import POLLIN, POLLOUT
from typing import Final, Protocol

from bothends.engines.base import DRAIN_QUIET, Job
from bothends.engines.driver import Exchange
from bothends.errors import MessageTooLong
from bothends.events import Cause
from bothends.services.base import Peer, nowhere
from bothends.sockets import Listener

# Larger than any message that a SOCK_SEQPACKET socket with default buffers can send
# (net.core.wmem_default is 212,992 bytes).
LARGEST_MESSAGE: Final = 256 * 1024

# What a send or a receive answers when the peer, or the way to it, is gone.
GONE: Final = frozenset(
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

# Closing with a linger time of zero drops unsent data and sends RST (socket(7), SO_LINGER): what
# the kernel still holds for a peer that doesn't read would otherwise be held for minutes.
_NO_LINGER: Final = struct.pack("ii", 1, 0)


def abandon(connection: socket.socket) -> None:
    """Make the next close() drop what is unsent and reset the connection."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    except OSError:
        return  # UNIX sockets have no lingering close: there the plain one does the same


class Loop(Protocol):
    """What a channel needs of the loop that runs it."""

    @property
    def now(self) -> float:
        """Seconds on the loop's clock, as of this turn."""

    def watch(self, channel: Channel) -> None:
        """`channel.interest` has changed."""

    def schedule(self, channel: Channel, due: float) -> None:
        """Call `channel.on_timer(now)` at `due` or soon after."""

    def gone(self, channel: Channel) -> None:
        """The channel is about to close its socket: forget it."""


class Channel:
    """One connection of an engine that waits for readiness."""

    __slots__ = (
        "_began",
        "_chunk",
        "_closed",
        "_doomed",
        "_ended",
        "_heard",
        "_limits",
        "_linger_until",
        "_loop",
        "_moved",
        "_queue",
        "_rests_until",
        "exchange",
        "interest",
        "slot",
        "socket",
        "unsent",
    )

    def __init__(
        self, loop: Loop, job: Job, listener: Listener, connection: socket.socket, peer: Peer
    ) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.interest = POLLIN
        self.unsent = 0
        self.slot: int | None = None
        self._loop = loop
        self._began = loop.now
        self._heard = self._moved = loop.now  # when something last arrived; when anything last moved
        self._limits = job.limits
        # No more at once than may be read in a second.
        self._chunk = min(job.limits.chunk, job.limits.rate or job.limits.chunk)
        self._queue: collections.deque[memoryview | bytes] = collections.deque()
        self._ended = False
        self._rests_until: float | None = None
        self._linger_until: float | None = None
        self._doomed: Cause | None = None
        self._closed = False
        self.exchange = Exchange(job, listener, peer, self._post if job.service.posts else nowhere)

    def start(self) -> None:
        """The loop knows the channel now: let the conversation begin."""
        due = self._next_look(self._began)
        if due is not None:
            self._loop.schedule(self, due)
        self._say(self.exchange.start())

    # What the loop calls ---------------------------------------------------------------------

    def on_ready(self, ready: int) -> None:
        """The socket is ready: POLLIN, POLLOUT, or an error (POLLERR, POLLHUP), which reading,
        or where we don't read any more, writing will meet."""
        if ready & ~POLLOUT and not (self._ended and self._linger_until is None):
            self._on_readable()
        if ready & ~POLLIN and not self._closed:
            self._on_writable()

    def on_timer(self, now: float) -> float | None:
        """Look at the limits; return when to look again."""
        if self._closed:
            return None
        if self._doomed is not None:
            self.close(self._doomed)
            return None
        if self._linger_until is not None:
            if now >= self._linger_until:
                self.close()
                return None
            return self._linger_until
        if self._rests_until is not None and now >= self._rests_until:
            self._rests_until = None
            self._settle()
            if self._closed:
                return None
        limit = self.exchange.next_limit(self._began, self._moved)
        if limit is not None and now >= limit[0]:
            self._expire(limit[1])
            return self._linger_until
        return self._next_look(now)

    def _next_look(self, now: float) -> float | None:
        look = self.exchange.next_look(self._began, self._moved, now)
        looks = [each for each in (look, self._rests_until) if each is not None]
        return min(looks, default=None)

    def drain(self, looked: float) -> None:
        """The server is leaving: finish this talk if it rests. What came before `looked` has been heard."""
        if self._linger_until is not None or looked - self._heard < DRAIN_QUIET:
            return
        # To who pulls, something is owed for as long as it is not told to end.
        if not self.unsent or self.exchange.pulls:
            self._finish(Cause.DRAINED)

    def close(self, cause: Cause | None = None) -> None:
        """End it now. With a cause: the talk was cut off, and what is unsent is dropped."""
        if self._closed:
            return
        self._closed = True
        if cause is not None and cause is not Cause.RESET:
            abandon(self.socket)
        self._loop.gone(self)
        self.socket.close()
        self._queue.clear()
        self.exchange.close(cause)

    # Reading ---------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            if self.exchange.peer.boundaries:
                data = self._read_message()
            else:
                data = self.socket.recv(self._chunk)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(error)
            return
        self._heard = self._moved = self._loop.now
        if self._linger_until is not None:
            if not data:
                self.close()
        elif data:
            said = self.exchange.receive(data)
            if self.exchange.rest:
                self._rests_until = self._loop.now + self.exchange.rest
                self._loop.schedule(self, self._rests_until)
            self._say(said)
        else:
            self._ended = True
            self._say(self.exchange.end())

    def _read_message(self) -> bytes:
        most = self._limits.message or LARGEST_MESSAGE
        data, _, flags, _ = self.socket.recvmsg(most)
        if flags & socket.MSG_TRUNC:
            self.exchange.fail(MessageTooLong(most, len(data) + 1))
            self._ended = True
            return b""
        return data

    # Writing ---------------------------------------------------------------------------------

    def _say(self, data: bytes) -> None:
        if data:
            if self._queue:
                self._enqueue(data)
            else:
                self._send(data)
        self._settle()

    def _send(self, data: bytes | memoryview) -> bool:
        """Give the system what it takes and queue the rest; whether all went."""
        try:
            count = self.socket.send(data, socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            self._enqueue(data)
            return False
        except OSError as error:
            self._lost(error)
            return False
        self._moved = self._loop.now
        if count == len(data):
            self.exchange.took(data)
            return True
        view = memoryview(data)
        self.exchange.took(view[:count])
        self._enqueue(view[count:])
        return False

    def _enqueue(self, data: bytes | memoryview) -> None:
        self._queue.append(data)
        self.unsent += len(data)

    def _on_writable(self) -> None:
        queue = self._queue
        while queue and not self._closed:
            data = queue.popleft()
            self.unsent -= len(data)
            if not self._send(data):
                if queue and not self._closed:
                    queue.rotate(1)  # _send has put the rest at the end; it belongs in front
                break
        self._settle()

    def _settle(self) -> None:
        """After every step: pull more, hang up, or wait for what is wanted now."""
        if self._closed or self._linger_until is not None:
            return
        exchange = self.exchange
        pulling = False
        if exchange.pulls and not self._queue and (data := exchange.more()):
            # One piece a turn: a fast reader must not keep the loop from everybody else.
            pulling = True
            self._send(data)
            if self._closed:
                return
        if exchange.over and not self._queue:
            self._hang_up()
            return
        interest = 0
        resting = self._rests_until is not None
        if not (self._ended or exchange.over or resting) and self.unsent <= self._limits.unsent:
            interest = POLLIN
        if pulling or self._queue:
            interest |= POLLOUT
        if interest != self.interest:
            self.interest = interest
            self._loop.watch(self)

    def _hang_up(self) -> None:
        """All is said and sent: close, or wait for the peer to close first (fact 3)."""
        if self._ended:
            self.close()
            return
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lost(error)
            return
        self._linger_until = self._loop.now + self._limits.linger
        self._loop.schedule(self, self._linger_until)
        self.interest = POLLIN
        self._loop.watch(self)

    # Ending otherwise ------------------------------------------------------------------------

    def _post(self, data: bytes) -> None:
        # Queued, never sent at once: a send may find the peer gone, and ending this conversation
        # can post to the next member, whose peer may be gone as well, and so on down the stack.
        if self._closed or self._doomed is not None or self._linger_until is not None or not data:
            return
        self._enqueue(data)
        if self.unsent > self._limits.posted:
            self._doomed = Cause.STALLED
            self._loop.schedule(self, self._loop.now)
        elif not self.interest & POLLOUT:
            self.interest |= POLLOUT
            self._loop.watch(self)

    def _expire(self, cause: Cause) -> None:
        """A time limit has passed: a last word to a peer that reads, none to one that doesn't."""
        if self.unsent:
            self.close(cause)
        else:
            self._finish(cause)

    def _finish(self, cause: Cause) -> None:
        """We read no more: the conversation's last word, then the end."""
        self._say(self.exchange.finish(cause))
        self.exchange.over = True
        self._settle()

    def _lost(self, error: OSError) -> None:
        if error.errno in GONE:
            self.close(Cause.RESET)
        else:
            self.exchange.fail(error)
            self.close(Cause.FAILED)
