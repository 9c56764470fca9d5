"""Proxy datagrams: a session for each client, with its own socket to the server.

A datagram socket has no connections, so a client's first datagram starts a session. The session's socket is
how replies are matched to their client. A session ends after `idle_timeout` seconds without data. The number
of sessions is limited; at the limit, datagrams of new clients are dropped, so that a sender with forged
addresses cannot evict active sessions.

A datagram that the kernel rejects with EAGAIN is queued and retried after RETRY_INTERVAL. Waiting for
writability is of no use here: for an unconnected UNIX socket it does not reflect the receiver's queue.

UDP datagrams that exceed the queues are dropped, as in a router. The kernel never drops UNIX datagrams
(unix(7)), so while the server accepts none, none are read from the clients.
"""

from __future__ import annotations

import contextlib
import errno
import math
import socket
from typing import Any, Final, Protocol

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
_BATCH: Final = 64  # datagrams read from one socket per event-loop iteration
_MAX_PENDING: Final = 64  # datagrams of a session queued while the server's name is resolved

# Errors of a UNIX datagram socket whose peer socket was closed. They are permanent.
_PEER_GONE: Final = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN})


class SessionContext(ProxyContext, Protocol):
    """The proxy, as a datagram listener uses it."""

    def new_session(
        self, listener: DatagramListener, client: Address, peer: Any, ancillary: Any
    ) -> UdpSession | None:
        """Start a session, or return None at the limit."""


class DatagramListener:
    """A datagram socket that clients send to, and their sessions."""

    def __init__(self, context: SessionContext, listener: Listener) -> None:
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
        """Watch the socket for input, except while a session of a UNIX socket is full."""
        wants = not (self._is_unix and any(each.is_full for each in self.sessions.values()))
        if wants != self._is_reading:
            self._is_reading = wants
            if wants:
                self._context.loop.watch(self.socket.fileno(), IN, self._on_ready)
            else:
                self._context.loop.unwatch(self.socket.fileno())

    def close(self) -> None:
        """Stop reading and close the socket."""
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
                continue  # an error of an earlier reply (udp(7)): that client is gone
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
    """The client's side of a session: the listening socket, which all sessions share."""

    def __init__(self, listener: DatagramListener, peer: Any, ancillary: Ancillary) -> None:
        self._listener = listener
        self._peer = peer
        self._ancillary = ancillary

    def send(self, pieces: list[bytes | memoryview]) -> int:
        """Send a datagram; see `link.Sink`."""
        try:
            return send_datagram(self._listener.socket, bytes(pieces[0]), self._peer, self._ancillary)
        except BlockingIOError:
            return -1
        except OSError:  # a UNIX client that is gone or has no address: the datagram is lost
            return 0

    def send_eof(self) -> None:
        """Do nothing: datagrams have no EOF."""


class _UpstreamSink:
    """The server's side of a session: its own socket."""

    def __init__(self, session: UdpSession, end: SocketEnd) -> None:
        self._session = session
        self._end = end

    def send(self, pieces: list[bytes | memoryview]) -> int:
        """Send a datagram; see `link.Sink`."""
        try:
            return self._end.send(pieces)
        except OSError as error:
            self._session.on_socket_error(error)
            return 0

    def send_eof(self) -> None:
        """Do nothing: datagrams have no EOF."""


class UdpSession:
    """The datagrams between one client and the server."""

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
        """The upstream and downstream links; empty until the socket to the server is open."""
        return tuple(each for each in (self.upstream, self.downstream) if each is not None)

    @property
    def is_full(self) -> bool:
        """Whether the queue to the server is full."""
        if self.upstream is None:
            return len(self._pending_datagrams) >= _MAX_PENDING
        return not self.upstream.wants_more

    def feed(self, data: bytes) -> None:
        """Forward a datagram from the client."""
        self._last_activity = self.loop.now
        if self.upstream is not None:
            self.upstream.feed(data)
            if self.upstream.is_blocked:
                self.update_interest()
        elif len(self._pending_datagrams) < _MAX_PENDING:
            self._pending_datagrams.append(data)

    def on_socket_error(self, error: OSError) -> None:
        """Handle an error that the kernel reports for an earlier datagram."""
        has_end = self._server_end is not None and self._server_end.has_eof
        if (self._context.upstream.is_unix or has_end) and error.errno in _PEER_GONE:
            self.loop.post(lambda: self._close("the server is gone"))

    # Called by the links (link.LinkOwner) --------------------------------------------------------

    def eof_forwarded(self, link: ToxicLink) -> None:
        """Do nothing: datagrams have no EOF."""

    def close(self) -> None:
        """End the session; see `LinkOwner`."""
        self._close("closed")

    def reset(self) -> None:
        """End the session; see `LinkOwner`."""
        self._close("reset")

    def sink_lost(self, link: ToxicLink) -> None:
        """Do nothing: the sinks of datagrams drop what they cannot send."""

    def abort(self) -> None:
        """End the session at once."""
        self._close("aborted")

    def update_interest(self) -> None:
        """Read replies while there is room for them, and schedule a retry of rejected datagrams."""
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

    # Called by the event loop ---------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """End the session if it has been idle for `idle_timeout`."""
        remaining = self._last_activity + self._context.idle_timeout - now
        if remaining <= 0:
            self._close("idle")
        else:
            self.loop.schedule_wakeup(self, now + remaining)

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
        pending, self._pending_datagrams = self._pending_datagrams, []
        for data in pending:
            self.upstream.feed(data)
        self.update_interest()
        self._listener.update_interest()

    def _on_ready(self, _ready: int) -> None:
        assert self._server_end is not None
        assert self.downstream is not None
        for _ in range(_BATCH):
            try:
                messages = self._server_end.receive()
            except OSError as error:
                self.on_socket_error(error)
                break
            except MessageTooLong:
                messages = None
            if messages is None:
                self._close("the server has finished")
                return
            if not messages:
                break
            self._last_activity = self.loop.now
            for data in messages:
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
