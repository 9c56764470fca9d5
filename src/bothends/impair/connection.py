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
   The reset of one end travels behind what that end had said, as it would on a long path: latency must not
   destroy an answer that was given before.
5. Where a connection leads to datagrams, only the client can end it: by leaving, or by finishing, after
   which answers are waited for as long as a session of datagrams may be idle.
"""

from __future__ import annotations

import math
import select
import socket
from typing import Final

from bothends.endpoints import Address
from bothends.errors import BothendsError, MessageTooLong
from bothends.impair.dialer import Dialing
from bothends.impair.interfaces import Keeper
from bothends.impair.link import Pathway
from bothends.impair.sockets import End, end_of
from bothends.osutil.event_loop import IN, OUT
from bothends.toxics.base import Medium

LINGER: Final = 2.0  # seconds

_GONE: Final = select.EPOLLHUP | select.EPOLLERR


class Connection:
    """A client's connection and ours to the server."""

    def __init__(self, keeper: Keeper, number: int, sock: socket.socket, client: Address) -> None:
        self.loop = keeper.loop
        self.number = number
        self.client = client
        self.wake_at = math.inf
        self._keeper = keeper
        self._near = end_of(sock, keeper.framing)
        self._far: End | None = None
        is_plain = sock.type == socket.SOCK_STREAM and keeper.framing is None
        self._medium = Medium.STREAM if is_plain else Medium.MESSAGES
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
        self._leave_if_all_is_said()
        if not self._is_over and self._far is not None and not self._far.has_end:
            self.loop.wake(self, self.loop.now + self._keeper.idle)

    def close(self) -> None:
        """Finish both ends, read on for a moment what still comes, and leave; where one was reset, reset."""
        if self._is_closing or self._is_over:
            return
        if any(end.is_lost for end in self._ends()):
            self.reset()
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

    def lost(self, direction: Pathway) -> None:
        """See Owner."""
        end = self._far if direction is self.upstream else self._near
        if end is not None:
            self._lose(end)

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
        self._leave("closed")

    def _answered(self, sock: socket.socket | None, error: BothendsError | None) -> None:
        self._dialing = None
        if sock is None:
            assert error is not None
            self._keeper.unreachable(self, error)
            self._near.reset()
            self._leave("no server")
            return
        self._far = end_of(sock, self._keeper.framing)
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
        if ready & OUT and not self._push(end, writing):
            return
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

    def _push(self, end: End, writing: Pathway) -> bool:
        """Have an end take more; False if the connection is over."""
        try:
            end.push()
        except OSError:
            self._lose(end)
            return not self._is_over
        if not end.is_pending:
            writing.flush()
        self._leave_if_all_is_said()
        return not self._is_over

    def _read(self, end: End, reading: Pathway) -> None:
        try:
            found = end.receive()
        except OSError:
            self._lose(end)
            return
        except MessageTooLong:
            self.reset()
            return
        if self._is_closing:
            if found is None:
                end.ended = True
                if all(each.ended for each in self._ends()):
                    self._leave("closed by a toxic")
        elif found is None:
            reading.end()
        else:
            for data in found:
                if not self._is_over:
                    reading.feed(data)

    def _lose(self, end: End) -> None:
        """An end has been reset: nothing more can be said to it, and the other is told in its turn."""
        if self._is_over or end.is_lost:
            return
        if self._is_closing or self.upstream is None or self.downstream is None:
            self._leave("reset")
            return
        end.is_lost = True
        if end.watched:
            self._unwatch(end)
        told, silenced = self.upstream, self.downstream
        if end is self._far:
            told, silenced = silenced, told
        silenced.clear()
        told.fail()

    # Leaving --------------------------------------------------------------------------------------------

    def _ends(self) -> list[End]:
        return [self._near] if self._far is None else [self._near, self._far]

    def _watch(self, end: End, reading: Pathway, writing: Pathway) -> None:
        if end.is_lost:
            return
        wants = not end.ended if self._is_closing else not reading.ended and reading.wants_more
        interest = IN if wants else 0
        if writing.is_blocked or end.is_pending:
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

    def _leave_if_all_is_said(self) -> None:
        if len(self._over) == 2 and not any(end.is_pending for end in self._ends()):
            self._leave("both ends closed")

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
