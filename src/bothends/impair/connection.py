"""One connection through the proxy, of a stream or sequenced packets: a client, a server, two directions.

    dialing ──> open ──both ends said and passed on──> closed
       └────────────┴──a toxic closes──> lingering ──> closed      (a toxic resets, an end is reset: at once)

1. The client is read only once the server has answered the call: what it says meanwhile waits in the kernel,
   which makes it feel a server that doesn't accept.
2. A half-close passes: the end of one side is told to the other when all before it has been, and the other
   direction goes on.
3. close() with unread input makes the kernel send RST, which destroys what the peer has not read yet
   (RFC 1122 section 4.2.2.13). So a connection that a toxic closes is finished first, and what still comes is
   read and thrown away, for LINGER seconds.
4. An end that is not read is still reported when it is reset or hung up (EPOLLHUP, EPOLLERR), as long as it
   is. It is then left out of the set until it is to be read, and reading tells.
5. Where sequenced packets are carried over datagrams, only the client can end the connection.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import struct
from typing import Final

from bothends.endpoints import Address
from bothends.errors import BothendsError
from bothends.impair.dialing import Dialing
from bothends.impair.direction import Pathway
from bothends.impair.keeper import Keeper
from bothends.impair.loop import IN, OUT, Loop
from bothends.toxics.base import Medium

CHUNK: Final = 64 * 1024  # bytes a read of a stream: as much as malloc(3) gives without a system call
MESSAGE: Final = 256 * 1024  # a message of sequenced packets has 212,960 bytes by default (net.core.wmem_max)
LINGER: Final = 2.0  # seconds

_GONE: Final = select.EPOLLHUP | select.EPOLLERR
_RESET: Final = struct.pack("ii", 1, 0)


class End:
    """A socket of the connection: where one direction begins and the other one leads."""

    __slots__ = ("_boundaries", "ended", "has_end", "interest", "loop", "socket", "watched")

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.loop = loop
        self.socket = sock
        self.interest = 0
        self.watched = False
        self.ended = False
        """Whether it has finished while the connection is being closed."""
        self._boundaries = sock.type != socket.SOCK_STREAM
        self.has_end = sock.type != socket.SOCK_DGRAM

    def send(self, pieces: list[bytes | memoryview]) -> int:
        """See Sink."""
        try:
            if self._boundaries or len(pieces) == 1:
                return self.socket.send(pieces[0])
            return self.socket.sendmsg(pieces)
        except BlockingIOError:
            return -1

    def finish(self) -> None:
        """See Sink."""
        with contextlib.suppress(OSError):  # it is gone already
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Have the close that follows send RST: a linger time of zero (socket(7), SO_LINGER)."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


class Connection:
    """A client's connection and ours to the server."""

    def __init__(self, keeper: Keeper, number: int, sock: socket.socket, client: Address) -> None:
        self.loop = keeper.loop
        self.number = number
        self.client = client
        self.wake_at = math.inf
        self.began = self.loop.now
        self._keeper = keeper
        self._near = End(self.loop, sock)
        self._far: End | None = None
        self._medium = Medium.STREAM if sock.type == socket.SOCK_STREAM else Medium.MESSAGES
        self._chunk = CHUNK if self._medium is Medium.STREAM else MESSAGE
        self._is_closing = False
        self._is_over = False
        self._over: list[Pathway] = []
        self.upstream: Pathway | None = None
        self.downstream: Pathway | None = None
        self._dialing: Dialing | None = Dialing(self.loop, keeper.upstream, self._answered)

    @property
    def pathways(self) -> tuple[Pathway, ...]:
        """Upstream and downstream; none while the server is being called."""
        return tuple(each for each in (self.upstream, self.downstream) if each is not None)

    # What the directions call (direction.Owner) -----------------------------------------------------

    def delivered(self, direction: Pathway) -> None:
        """See Owner."""
        self._over.append(direction)
        if len(self._over) == 2:
            self._leave("both ends closed")

    def close(self) -> None:
        """Finish both ends, read on for a moment what still comes, and leave."""
        if self._is_closing or self._is_over:
            return
        self._is_closing = True
        for each in self.pathways:
            each.clear()
        for end in self._ends():
            end.finish()
        self.loop.wake(self, self.loop.now + LINGER)
        self.settle()

    def reset(self) -> None:
        """Reset both ends at once."""
        if not self._is_over:
            for end in self._ends():
                end.reset()
            self._leave("reset")

    def cut(self) -> None:
        """Close both ends now, whatever is under way."""
        self._leave("cut")

    def settle(self) -> None:
        """Watch what there is to wait for now."""
        if self._is_over or self._far is None or self.upstream is None or self.downstream is None:
            return
        self._watch(self._near, self.upstream, self.downstream)
        self._watch(self._far, self.downstream, self.upstream)

    # What the loop calls ------------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """It has lingered long enough."""
        self._leave("closed by a toxic")

    def _answered(self, sock: socket.socket | None, error: BothendsError | None) -> None:
        self._dialing = None
        if sock is None:
            assert error is not None
            self._keeper.unreachable(self, error)
            self._near.reset()
            self._leave("no server")
            return
        self._far = End(self.loop, sock)
        up, down = self._keeper.pipelines(self.number, self.client, self._medium)
        self.upstream, self.downstream = Pathway(self, self._far, up), Pathway(self, self._near, down)
        for each in self.pathways:
            if not self._is_over:
                each.begin()
        self.settle()

    def _on_ready(self, end: End, ready: int) -> None:
        reading, writing = (self.upstream, self.downstream)
        if end is self._far:
            reading, writing = writing, reading
        assert reading is not None
        assert writing is not None
        if ready & OUT:
            writing.flush()
        if ready & (IN | _GONE) and not self._is_over:
            if end.interest & IN:
                self._read(end, reading)
                if ready == IN and reading.is_at_rest:
                    return  # by far the most: what came went on at once
            elif ready & _GONE and not ready & OUT:
                self._unwatch(end)
                if self._far is not None and not self._far.has_end:
                    self._leave("the client has gone")  # the server can't end it, having no connection
                return
        self.settle()

    def _read(self, end: End, reading: Pathway) -> None:
        try:
            data = end.socket.recv(self._chunk)
        except BlockingIOError:
            return
        except OSError:
            self.reset()
            return
        if self._is_closing:
            if not data:
                end.ended = True
                if all(each.ended for each in self._ends()):
                    self._leave("closed by a toxic")
        elif data or not end.has_end:
            reading.feed(data)
        else:
            reading.end()

    # Leaving --------------------------------------------------------------------------------------------

    def _ends(self) -> list[End]:
        return [self._near] if self._far is None else [self._near, self._far]

    def _watch(self, end: End, reading: Pathway, writing: Pathway) -> None:
        wants = not end.ended if self._is_closing else not reading.ended and reading.wants_more
        interest = IN if wants else 0
        if writing.is_blocked:
            interest |= OUT
        if interest == end.interest and (end.watched or not interest):
            return
        if end.watched:
            self.loop.change(end.socket.fileno(), interest)
        else:
            self.loop.watch(end.socket.fileno(), interest, lambda ready: self._on_ready(end, ready))
            end.watched = True
        end.interest = interest

    def _unwatch(self, end: End) -> None:
        self.loop.forget(end.socket.fileno())
        end.watched = False
        end.interest = 0

    def _leave(self, why: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        self.wake_at = math.inf
        if self._dialing is not None:
            self._dialing.cancel()
        for each in self.pathways:
            each.clear()
        for end in self._ends():
            if end.watched:
                self._unwatch(end)
            end.socket.close()
        self._keeper.left(self, why)
