"""Datagrams through the proxy: a session for each client, with a socket of its own towards the server.

A datagram socket has no connections, so a session begins with a client's first datagram, and its own
socket is what lets the server's answers find their client. It ends when nothing has moved for `idle` seconds.
There are `most` at once; the datagrams of newcomers are then dropped, for who sends from forged addresses
must not throw out those who talk.

Where the system takes no datagram now (EAGAIN), it is kept and tried again after RETRY: writability says
nothing here, as for an unconnected UNIX socket it doesn't tell of the receiver's queue.

UDP loses what nobody has room for, as any router does. UNIX datagrams are never lost by the kernel (unix(7)),
so while the server takes none, none are read.
"""

from __future__ import annotations

import contextlib
import errno
import math
import socket
from typing import Any, Final

from bothends.endpoints import Address
from bothends.errors import BothendsError, MessageTooLong
from bothends.impair.dialer import Dialer
from bothends.impair.interfaces import ProxyContext
from bothends.impair.link import ToxicLink
from bothends.impair.sockets import MAX_MESSAGE_SIZE, SocketEnd, wrap_socket
from bothends.osutil.event_loop import IN, Timer
from bothends.sockets import Listener, enable_pktinfo, receive_datagram, send_datagram
from bothends.sockets.datagrams import DATAGRAM_SIZE, Ancillary
from bothends.toxics.base import Medium

RETRY_INTERVAL: Final = 0.002  # seconds: a datagram of 64 KiB takes half a millisecond at 1 Gbit/s
_BATCH: Final = 64  # datagrams a turn from one socket
_MAX_PENDING: Final = 64  # datagrams that wait for the server's name to be looked up

# What a UNIX datagram socket answers when the one at the other end has been closed: it stays so for ever.
_PEER_GONE: Final = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN})


class DatagramListener:
    """One datagram socket that clients send to, and their sessions."""

    def __init__(self, context: ProxyContext, listener: Listener) -> None:
        self.sessions: dict[Any, UdpSession] = {}
        self.socket = listener.socket
        self._context = context
        self._listener = listener
        self._is_unix = listener.socket.family == socket.AF_UNIX
        self._max_size = MAX_MESSAGE_SIZE if self._is_unix else DATAGRAM_SIZE
        self._wildcard = enable_pktinfo(self.socket)
        self._is_reading = False
        self.socket.setblocking(False)
        self.update_interest()

    def update_interest(self) -> None:
        """Read, or don't while a session of a UNIX socket is full."""
        wants = not (self._is_unix and any(each.is_full for each in self.sessions.values()))
        if wants != self._is_reading:
            self._is_reading = wants
            if wants:
                self._context.loop.watch(self.socket.fileno(), IN, self._on_ready)
            else:
                self._context.loop.unwatch(self.socket.fileno())

    def close(self) -> None:
        """Take no more."""
        if self._is_reading:
            self._context.loop.unwatch(self.socket.fileno())
        self._listener.close()

    def _on_ready(self, _ready: int) -> None:
        for _ in range(_BATCH):
            try:
                data, _, peer, ancillary = receive_datagram(
                    self.socket, self._max_size, wildcard=self._wildcard
                )
            except BlockingIOError:
                break
            except OSError:
                continue  # the error of an earlier answer (udp(7)): its client has gone
            session = self.sessions.get(peer)
            if session is None:
                client = Address.from_sockaddr(self.socket.family, peer)
                session = self._context.new_session(self, client, peer, ancillary)
                if session is None:
                    continue
                self.sessions[peer] = session
            session.feed(data)
            if self._is_unix and session.is_full:
                break
        if self._is_unix:
            self.update_interest()


class _ClientSink:
    """The client's side of a session: the socket that all share."""

    def __init__(self, listener: DatagramListener, peer: Any, ancillary: Ancillary) -> None:
        self._listener = listener
        self._peer = peer
        self._ancillary = ancillary

    def send(self, pieces: list[bytes | memoryview]) -> int:
        """See direction.Sink."""
        try:
            return send_datagram(self._listener.socket, bytes(pieces[0]), self._peer, self._ancillary)
        except BlockingIOError:
            return -1
        except OSError:  # a UNIX client without a name, or one that has gone: as good as lost
            return 0

    def send_eof(self) -> None:
        """Datagrams have no end."""


class _UpstreamSink:
    """The server's side: a socket of the session's own."""

    def __init__(self, session: UdpSession, end: SocketEnd) -> None:
        self._session = session
        self._end = end

    def send(self, pieces: list[bytes | memoryview]) -> int:
        """See direction.Sink."""
        try:
            return self._end.send(pieces)
        except OSError as error:
            self._session.on_socket_error(error)
            return 0

    def send_eof(self) -> None:
        """Datagrams have no end."""


class UdpSession:
    """What one client and the server say to each other."""

    def __init__(
        self,
        context: ProxyContext,
        number: int,
        listener: DatagramListener,
        client: Address,
        peer: Any,
        ancillary: Ancillary,
    ) -> None:
        self.loop = context.loop
        self.number = number
        self.client = client
        self.wake_at = math.inf
        self.upstream: ToxicLink | None = None
        self.downstream: ToxicLink | None = None
        self._context = context
        self._listener = listener
        self._peer = peer
        self._client_sink = _ClientSink(listener, peer, ancillary)
        self._server_end: SocketEnd | None = None
        self._pending_datagrams: list[bytes] = []
        self._last_activity = self.loop.now
        self._is_closed = False
        self._is_reading = False
        self._retry_timer: Timer | None = None
        self._dialer: Dialer | None = Dialer(self.loop, context.upstream, self._on_dialed)
        self.loop.schedule_wakeup(self, self.loop.now + context.idle_timeout)

    @property
    def links(self) -> tuple[ToxicLink, ...]:
        """Upstream and downstream; none while the server's name is looked up."""
        return tuple(each for each in (self.upstream, self.downstream) if each is not None)

    @property
    def is_full(self) -> bool:
        """Whether the server takes nothing, and enough waits for it."""
        if self.upstream is None:
            return len(self._pending_datagrams) >= _MAX_PENDING
        return not self.upstream.wants_more

    def feed(self, data: bytes) -> None:
        """The client has sent this."""
        self._last_activity = self.loop.now
        if self.upstream is not None:
            self.upstream.feed(data)
            if self.upstream.is_blocked:
                self.update_interest()
        elif len(self._pending_datagrams) < _MAX_PENDING:
            self._pending_datagrams.append(data)

    def on_socket_error(self, error: OSError) -> None:
        """The system reports of an earlier datagram that nobody took it."""
        has_end = self._server_end is not None and self._server_end.has_eof
        if (self._context.upstream.is_unix or has_end) and error.errno in _PEER_GONE:
            self.loop.post(lambda: self._close("the server has gone"))

    # What the directions call (direction.Owner) ---------------------------------------------------

    def eof_forwarded(self, link: ToxicLink) -> None:
        """See Owner: datagrams have no end."""

    def close(self) -> None:
        """See Owner."""
        self._close("closed")

    def reset(self) -> None:
        """See Owner."""
        self._close("reset")

    def sink_lost(self, link: ToxicLink) -> None:
        """See Owner: a sink of datagrams forgets what it cannot send."""

    def abort(self) -> None:
        """End it now."""
        self._close("cut")

    def update_interest(self) -> None:
        """Read the server's answers if there is room for them; try again what was not taken."""
        if self._is_closed or self._server_end is None or self.downstream is None or self.upstream is None:
            return
        wants = self.downstream.wants_more
        if wants != self._is_reading:
            self._is_reading = wants
            if wants:
                self.loop.watch(self._server_end.socket.fileno(), IN, self._on_ready)
            else:
                self.loop.unwatch(self._server_end.socket.fileno())
        is_waiting = self.upstream.is_blocked or self.downstream.is_blocked or self._server_end.has_pending
        if self._retry_timer is None and is_waiting:
            self._retry_timer = self.loop.call_later(RETRY_INTERVAL, self._on_retry)

    # What the loop calls --------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """Perhaps it has been idle for long enough."""
        left = self._last_activity + self._context.idle_timeout - now
        if left <= 0:
            self._close("idle")
        else:
            self.loop.schedule_wakeup(self, now + left)

    def _on_dialed(self, sock: socket.socket | None, error: BothendsError | None) -> None:
        self._dialer = None
        if sock is None:
            assert error is not None
            self._context.upstream_unreachable(self, error)
            self._close("no server")
            return
        self._server_end = wrap_socket(sock, self._context.framing)
        up, down = self._context.new_pipelines(self.number, self.client, Medium.DATAGRAMS)
        self.upstream = ToxicLink(self, _UpstreamSink(self, self._server_end), up)
        self.downstream = ToxicLink(self, self._client_sink, down)
        for each in self.links:
            each.begin()
        early, self._pending_datagrams = self._pending_datagrams, []
        for data in early:
            self.upstream.feed(data)
        self.update_interest()
        self._listener.update_interest()

    def _on_ready(self, _ready: int) -> None:
        assert self._server_end is not None
        assert self.downstream is not None
        for _ in range(_BATCH):
            try:
                found = self._server_end.receive()
            except OSError as error:
                self.on_socket_error(error)
                break
            except MessageTooLong:
                found = None
            if found is None:
                self._close("the server has finished")
                return
            if not found:
                break
            self._last_activity = self.loop.now
            for data in found:
                self.downstream.feed(data)
            if not self.downstream.wants_more:
                break
        self.update_interest()

    def _on_retry(self) -> None:
        self._retry_timer = None
        if self._server_end is not None:
            try:
                self._server_end.flush()
            except OSError as error:
                self.on_socket_error(error)
        for each in self.links:
            each.flush()
        self.update_interest()
        self._listener.update_interest()

    def _close(self, reason: str) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self.wake_at = math.inf
        if self._dialer is not None:
            self._dialer.cancel()
        if self._retry_timer is not None:
            self._retry_timer.cancel()
        for each in self.links:
            each.discard()
        if self._server_end is not None:
            if self._is_reading:
                self.loop.unwatch(self._server_end.socket.fileno())
            self._server_end.socket.close()
        with contextlib.suppress(KeyError):
            del self._listener.sessions[self._peer]
        self._context.flow_closed(self, reason)
