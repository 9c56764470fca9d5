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
from bothends.impair.dialer import Dialing
from bothends.impair.interfaces import Keeper
from bothends.impair.link import Pathway
from bothends.impair.sockets import MESSAGE, End, end_of
from bothends.osutil.event_loop import IN, Timer
from bothends.sockets import Listener, enable_pktinfo, receive_datagram, send_datagram
from bothends.sockets.datagrams import DATAGRAM_SIZE, Ancillary
from bothends.toxics.base import Medium

RETRY: Final = 0.002  # seconds: a datagram of 64 KiB takes half a millisecond at 1 Gbit/s
_BATCH: Final = 64  # datagrams a turn from one socket
_EARLY: Final = 64  # datagrams that wait for the server's name to be looked up

# What a UNIX datagram socket answers when the one at the other end has been closed: it stays so for ever.
_GONE: Final = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN})


class Desk:
    """One datagram socket that clients send to, and their sessions."""

    def __init__(self, keeper: Keeper, listener: Listener) -> None:
        self.sessions: dict[Any, Session] = {}
        self.socket = listener.socket
        self._keeper = keeper
        self._listener = listener
        self._is_unix = listener.socket.family == socket.AF_UNIX
        self._size = MESSAGE if self._is_unix else DATAGRAM_SIZE
        self._wildcard = enable_pktinfo(self.socket)
        self._is_reading = False
        self.socket.setblocking(False)
        self.settle()

    def settle(self) -> None:
        """Read, or don't while a session of a UNIX socket is full."""
        wants = not (self._is_unix and any(each.is_full for each in self.sessions.values()))
        if wants != self._is_reading:
            self._is_reading = wants
            if wants:
                self._keeper.loop.watch(self.socket.fileno(), IN, self._on_ready)
            else:
                self._keeper.loop.forget(self.socket.fileno())

    def close(self) -> None:
        """Take no more."""
        if self._is_reading:
            self._keeper.loop.forget(self.socket.fileno())
        self._listener.close()

    def _on_ready(self, _ready: int) -> None:
        for _ in range(_BATCH):
            try:
                data, _, peer, ancillary = receive_datagram(self.socket, self._size, wildcard=self._wildcard)
            except BlockingIOError:
                break
            except OSError:
                continue  # the error of an earlier answer (udp(7)): its client has gone
            session = self.sessions.get(peer)
            if session is None:
                client = Address.of(self.socket.family, peer)
                session = self._keeper.begin(self, client, peer, ancillary)
                if session is None:
                    continue
                self.sessions[peer] = session
            session.feed(data)
            if self._is_unix and session.is_full:
                break
        if self._is_unix:
            self.settle()


class _ToClient:
    """The client's side of a session: the socket that all share."""

    def __init__(self, desk: Desk, peer: Any, ancillary: Ancillary) -> None:
        self._desk = desk
        self._peer = peer
        self._ancillary = ancillary

    def send(self, pieces: list[bytes | memoryview]) -> int:
        """See direction.Sink."""
        try:
            return send_datagram(self._desk.socket, bytes(pieces[0]), self._peer, self._ancillary)
        except BlockingIOError:
            return -1
        except OSError:  # a UNIX client without a name, or one that has gone: as good as lost
            return 0

    def finish(self) -> None:
        """Datagrams have no end."""


class _ToServer:
    """The server's side: a socket of the session's own."""

    def __init__(self, session: Session, end: End) -> None:
        self._session = session
        self._end = end

    def send(self, pieces: list[bytes | memoryview]) -> int:
        """See direction.Sink."""
        try:
            return self._end.send(pieces)
        except OSError as error:
            self._session.refused(error)
            return 0

    def finish(self) -> None:
        """Datagrams have no end."""


class Session:
    """What one client and the server say to each other."""

    def __init__(
        self, keeper: Keeper, number: int, desk: Desk, client: Address, peer: Any, ancillary: Ancillary
    ) -> None:
        self.loop = keeper.loop
        self.number = number
        self.client = client
        self.wake_at = math.inf
        self.upstream: Pathway | None = None
        self.downstream: Pathway | None = None
        self._keeper = keeper
        self._desk = desk
        self._peer = peer
        self._to_client = _ToClient(desk, peer, ancillary)
        self._end: End | None = None
        self._early: list[bytes] = []
        self._moved = self.loop.now
        self._is_over = False
        self._is_reading = False
        self._retry: Timer | None = None
        self._dialing: Dialing | None = Dialing(self.loop, keeper.upstream, self._answered)
        self.loop.wake(self, self.loop.now + keeper.idle)

    @property
    def pathways(self) -> tuple[Pathway, ...]:
        """Upstream and downstream; none while the server's name is looked up."""
        return tuple(each for each in (self.upstream, self.downstream) if each is not None)

    @property
    def is_full(self) -> bool:
        """Whether the server takes nothing, and enough waits for it."""
        if self.upstream is None:
            return len(self._early) >= _EARLY
        return not self.upstream.wants_more

    def feed(self, data: bytes) -> None:
        """The client has sent this."""
        self._moved = self.loop.now
        if self.upstream is not None:
            self.upstream.feed(data)
            if self.upstream.is_blocked:
                self.settle()
        elif len(self._early) < _EARLY:
            self._early.append(data)

    def refused(self, error: OSError) -> None:
        """The system reports of an earlier datagram that nobody took it."""
        has_end = self._end is not None and self._end.has_end
        if (self._keeper.upstream.is_unix or has_end) and error.errno in _GONE:
            self.loop.post(lambda: self._leave("the server has gone"))

    # What the directions call (direction.Owner) ---------------------------------------------------

    def delivered(self, direction: Pathway) -> None:
        """See Owner: datagrams have no end."""

    def close(self) -> None:
        """See Owner."""
        self._leave("closed")

    def reset(self) -> None:
        """See Owner."""
        self._leave("reset")

    def lost(self, direction: Pathway) -> None:
        """See Owner: a sink of datagrams forgets what it cannot send."""

    def cut(self) -> None:
        """End it now."""
        self._leave("cut")

    def settle(self) -> None:
        """Read the server's answers if there is room for them; try again what was not taken."""
        if self._is_over or self._end is None or self.downstream is None or self.upstream is None:
            return
        wants = self.downstream.wants_more
        if wants != self._is_reading:
            self._is_reading = wants
            if wants:
                self.loop.watch(self._end.socket.fileno(), IN, self._on_ready)
            else:
                self.loop.forget(self._end.socket.fileno())
        is_waiting = self.upstream.is_blocked or self.downstream.is_blocked or self._end.is_pending
        if self._retry is None and is_waiting:
            self._retry = self.loop.later(RETRY, self._try_again)

    # What the loop calls --------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """Perhaps it has been idle for long enough."""
        left = self._moved + self._keeper.idle - now
        if left <= 0:
            self._leave("idle")
        else:
            self.loop.wake(self, now + left)

    def _answered(self, sock: socket.socket | None, error: BothendsError | None) -> None:
        self._dialing = None
        if sock is None:
            assert error is not None
            self._keeper.unreachable(self, error)
            self._leave("no server")
            return
        self._end = end_of(sock, self._keeper.framing)
        up, down = self._keeper.pipelines(self.number, self.client, Medium.DATAGRAMS)
        self.upstream = Pathway(self, _ToServer(self, self._end), up)
        self.downstream = Pathway(self, self._to_client, down)
        for each in self.pathways:
            each.begin()
        early, self._early = self._early, []
        for data in early:
            self.upstream.feed(data)
        self.settle()
        self._desk.settle()

    def _on_ready(self, _ready: int) -> None:
        assert self._end is not None
        assert self.downstream is not None
        for _ in range(_BATCH):
            try:
                found = self._end.receive()
            except OSError as error:
                self.refused(error)
                break
            except MessageTooLong:
                found = None
            if found is None:
                self._leave("the server has finished")
                return
            if not found:
                break
            self._moved = self.loop.now
            for data in found:
                self.downstream.feed(data)
            if not self.downstream.wants_more:
                break
        self.settle()

    def _try_again(self) -> None:
        self._retry = None
        if self._end is not None:
            try:
                self._end.push()
            except OSError as error:
                self.refused(error)
        for each in self.pathways:
            each.flush()
        self.settle()
        self._desk.settle()

    def _leave(self, why: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        self.wake_at = math.inf
        if self._dialing is not None:
            self._dialing.cancel()
        if self._retry is not None:
            self._retry.cancel()
        for each in self.pathways:
            each.clear()
        if self._end is not None:
            if self._is_reading:
                self.loop.forget(self._end.socket.fileno())
            self._end.socket.close()
        with contextlib.suppress(KeyError):
            del self._desk.sessions[self._peer]
        self._keeper.left(self, why)
