"""One proxied connection (stream or sequenced packets): a client socket, a server socket, two links.

    dialing ──> open ──both EOFs forwarded──> closed
       └────────────┴──closed by a toxic──> lingering ──> closed      (a reset, by a toxic or an end: at once)

1. The client is read only once the connection to the server is open. Data sent earlier stays in the kernel,
   so the client sees a server that does not accept yet.
2. Half-close passes through: EOF is forwarded after the data before it, and the other direction stays open.
3. close() with unread input makes the kernel send RST, which destroys data that the peer has not read yet
   (RFC 1122 section 4.2.2.13). So when a toxic closes a connection, both ends are first shut down for
   writing, and input is read and discarded for LINGER seconds.
4. epoll reports a reset or hangup (EPOLLERR, EPOLLHUP) of a socket that is not being read, and repeats it for
   as long as it lasts. Such a socket is removed from the epoll set until it is to be read; the read then
   returns the error. A reset is queued behind the data that arrived before it, as on a long path: latency
   must not destroy a response that was sent before the reset.
5. If the server side is a datagram socket, only the client can end the connection: by a reset, or by EOF,
   after which replies are awaited for the idle timeout of datagram sessions.

The table of states of `engines/connection_state.py` does not fit. It is about one socket, which ends when a
conversation has finished and its answer is sent. Here each of two sockets ends the other, one direction at a
time and when the toxics let it, and a reset is passed on, not decided. The directions are in `link.py`.
"""

from __future__ import annotations

import enum
import math
import select
import socket
from typing import Final

from bothends.endpoints import Address
from bothends.errors import BothendsError, MessageTooLong
from bothends.impair.dialer import Dialer
from bothends.impair.interfaces import ProxyContext
from bothends.impair.link import ToxicLink
from bothends.impair.sockets import SocketEnd, wrap_socket
from bothends.osutil.event_loop import IN, OUT
from bothends.toxics.base import Medium

LINGER: Final = 2.0  # seconds of discarding input after a toxic has closed the connection

_HANGUP: Final = select.EPOLLHUP | select.EPOLLERR


class ProxyState(enum.Enum):
    """The state of a proxied connection; see the diagram above."""

    DIALING = enum.auto()
    OPEN = enum.auto()
    LINGERING = enum.auto()
    CLOSED = enum.auto()


class ProxyConnection:
    """A client's connection, and the proxy's connection to the server for it."""

    def __init__(self, context: ProxyContext, number: int, sock: socket.socket, client: Address) -> None:
        self.loop = context.loop
        self.number = number
        self.client = client
        self.wake_at = math.inf
        self._context = context
        self._client_end = wrap_socket(sock, context.framing)
        self._server_end: SocketEnd | None = None
        is_plain = sock.type == socket.SOCK_STREAM and context.framing is None
        self._medium = Medium.STREAM if is_plain else Medium.MESSAGES
        self._state = ProxyState.DIALING
        self._finished_links: list[ToxicLink] = []
        self.upstream: ToxicLink | None = None
        self.downstream: ToxicLink | None = None
        self._dialer: Dialer | None = Dialer(self.loop, context.upstream, self._on_dialed)

    @property
    def links(self) -> tuple[ToxicLink, ...]:
        """The upstream and downstream links; empty until the connection to the server is open."""
        return tuple(each for each in (self.upstream, self.downstream) if each is not None)

    @property
    def _is_closed(self) -> bool:
        return self._state is ProxyState.CLOSED

    # Called by the links (link.LinkOwner) -----------------------------------------------------------

    def eof_forwarded(self, link: ToxicLink) -> None:
        """Close once both EOFs are forwarded; see `LinkOwner`."""
        self._finished_links.append(link)
        self._close_if_finished()
        if not self._is_closed and self._server_end is not None and not self._server_end.has_eof:
            self.loop.schedule_wakeup(self, self.loop.now + self._context.idle_timeout)

    def close(self) -> None:
        """Shut down both ends and linger, discarding input; reset both if one has been reset."""
        if self._state in (ProxyState.LINGERING, ProxyState.CLOSED):
            return
        if any(end.is_reset for end in self._ends()):
            self.reset()
            return
        self._state = ProxyState.LINGERING
        for each in self.links:
            each.discard()
        for end in self._ends():
            end.send_eof()
        self.loop.schedule_wakeup(self, self.loop.now + LINGER)
        self.update_interest()

    def reset(self) -> None:
        """Reset both ends at once."""
        if not self._is_closed:
            for end in self._ends():
                end.reset_on_close()
            self._close("reset")

    def sink_lost(self, link: ToxicLink) -> None:
        """Handle a reset that a send reported; see `LinkOwner`."""
        end = self._server_end if link is self.upstream else self._client_end
        if end is not None:
            self._on_reset(end)

    def abort(self) -> None:
        """Close both ends at once."""
        self._close("aborted")

    def update_interest(self) -> None:
        """Update the events that both sockets are watched for."""
        if self._is_closed or self._server_end is None or self.upstream is None or self.downstream is None:
            return
        self._watch(self._client_end, self.upstream, self.downstream)
        self._watch(self._server_end, self.downstream, self.upstream)

    # Called by the event loop -------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """Close: the linger time, or the idle time of a connection to datagrams, is over."""
        self._close("closed")

    def _on_dialed(self, sock: socket.socket | None, error: BothendsError | None) -> None:
        self._dialer = None
        if sock is None:
            assert error is not None
            self._context.upstream_unreachable(self, error)
            self._client_end.reset_on_close()
            self._close("no server")
            return
        self._state = ProxyState.OPEN
        self._server_end = wrap_socket(sock, self._context.framing)
        up, down = self._context.new_pipelines(self.number, self.client, self._medium)
        self.upstream, self.downstream = (
            ToxicLink(self, self._server_end, up),
            ToxicLink(self, self._client_end, down),
        )
        for each in self.links:
            if not self._is_closed:
                each.begin()
        self.update_interest()

    def _on_ready(self, end: SocketEnd, ready: int) -> None:
        reading, writing = (self.upstream, self.downstream)
        if end is self._server_end:
            reading, writing = writing, reading
        assert reading is not None
        assert writing is not None
        if ready & OUT and not self._flush(end, writing):
            return
        if ready & (IN | _HANGUP) and not self._is_closed:
            if end.interest & IN:
                self._read(end, reading)
                if ready == IN and reading.is_idle:
                    return  # the usual case: all input was forwarded at once, so no interest changes
            elif ready & _HANGUP and not ready & OUT:
                self._unwatch(end)
                if self._server_end is not None and not self._server_end.has_eof:
                    self._close("the client is gone")  # a datagram server cannot end the connection
                return
        self.update_interest()

    def _flush(self, end: SocketEnd, writing: ToxicLink) -> bool:
        """Send queued data to an end. Returns False if the connection is closed."""
        try:
            end.flush()
        except OSError:
            self._on_reset(end)
            return not self._is_closed
        if not end.has_pending:
            writing.flush()
        self._close_if_finished()
        return not self._is_closed

    def _read(self, end: SocketEnd, reading: ToxicLink) -> None:
        try:
            messages = end.receive()
        except OSError:
            self._on_reset(end)
            return
        except MessageTooLong:
            self.reset()
            return
        if self._state is ProxyState.LINGERING:
            if messages is None:
                end.eof_received = True
                if all(each.eof_received for each in self._ends()):
                    self._close("closed by a toxic")
        elif messages is None:
            reading.feed_eof()
        else:
            for data in messages:
                if not self._is_closed:
                    reading.feed(data)

    def _on_reset(self, end: SocketEnd) -> None:
        """Handle the reset of an end: discard the data for it, and queue the reset to the other end."""
        if self._is_closed or end.is_reset:
            return
        if self._state is ProxyState.LINGERING or self.upstream is None or self.downstream is None:
            self._close("reset")
            return
        end.is_reset = True
        if end.watched:
            self._unwatch(end)
        outgoing, incoming = self.upstream, self.downstream
        if end is self._server_end:
            outgoing, incoming = incoming, outgoing
        incoming.discard()
        outgoing.feed_reset()

    # Interest and close ---------------------------------------------------------------------------------

    def _ends(self) -> list[SocketEnd]:
        return [self._client_end] if self._server_end is None else [self._client_end, self._server_end]

    def _watch(self, end: SocketEnd, reading: ToxicLink, writing: ToxicLink) -> None:
        if end.is_reset:
            return
        if self._state is ProxyState.LINGERING:
            wants = not end.eof_received
        else:
            wants = not reading.source_eof and reading.wants_more
        interest = IN if wants else 0
        if writing.is_blocked or end.has_pending:
            interest |= OUT
        if interest == end.interest and (end.watched or not interest):
            return
        if end.watched:
            self.loop.change(end.socket.fileno(), interest)
        else:
            self.loop.watch(end.socket.fileno(), interest, lambda ready: self._on_ready(end, ready))
            end.watched = True
        end.interest = interest

    def _unwatch(self, end: SocketEnd) -> None:
        self.loop.unwatch(end.socket.fileno())
        end.watched = False
        end.interest = 0

    def _close_if_finished(self) -> None:
        if len(self._finished_links) == 2 and not any(end.has_pending for end in self._ends()):
            self._close("both ends closed")

    def _close(self, reason: str) -> None:
        if self._is_closed:
            return
        self._state = ProxyState.CLOSED
        self.wake_at = math.inf
        if self._dialer is not None:
            self._dialer.cancel()
        for each in self.links:
            each.discard()
        for end in self._ends():
            if end.watched:
                self._unwatch(end)
            end.socket.close()
        self._context.flow_closed(self, reason)
