"""One connection that may block: recv() waits for the peer, send() waits for room.

The driver between an Exchange and a blocking socket, for every engine that gives a thread or a
process to a connection. Reading is one recv() a chunk and writing one send() a piece, as in every
textbook; what the textbook leaves out is how it ends.

What the kernel does, and what follows:

1. A blocked recv() or send() comes back for the peer, for a signal, for SO_RCVTIMEO and SO_SNDTIMEO,
   and when someone calls shutdown() on the socket; not when another thread closes the descriptor.
   So limits are given to the kernel as those two options (socket(7)), which costs no call where
   there is no limit, and a `Warden` ends whoever has to end by shutdown(). It needs no signals, so
   it works in any thread.
2. shutdown(SHUT_RD) on Linux says nothing to a TCP peer. It wakes the reader, who still gets what
   had arrived, then EOF. What arrives later is still acknowledged, but after our FIN it is answered
   with RST (tcp_rcv_state_process). On a UNIX socket the peer's next send fails with EPIPE.
   So only a connection on which nothing arrives is ended in this way.
3. shutdown(SHUT_RDWR) wakes a blocked sender as well, with EPIPE. What the kernel holds for a peer
   that doesn't read it would go on holding for minutes; SO_LINGER with a time of zero makes
   close() drop it and send RST.
4. A blocked send() of a large piece comes back when all of it fits, or, at its time limit, with what
   has been taken so far. So pieces are small enough that a slow reader shows progress.
5. Who blocks in send() doesn't read. That is backpressure for free, and a deadlock with a peer that
   sends without end before it reads anything: the idle limit ends it, nothing else can.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

from bothends.engines.base import DRAIN_QUIET, Limits
from bothends.engines.driver import Exchange
from bothends.engines.nonblocking import GONE, LARGEST_MESSAGE, abandon
from bothends.engines.shutdown import Latch, Stop
from bothends.errors import MessageTooLong
from bothends.events import Cause

# Most bytes that one send() is given: a fraction of what an autotuned send buffer holds (4 MB,
# net.ipv4.tcp_wmem), so that a send() that blocks for a second means a slow peer, not a large piece.
PIECE: Final = 256 * 1024

# How often a draining warden looks who has come to rest.
_TICK: Final = 0.05


class Ward:
    """One live connection, as its warden sees it. Made by `Warden.take`.

    Written by whoever drives the connection: `resting` (it waits for the peer, or is free to be told
    to end), `owes` (whether something waits to be sent meanwhile), `heard` (when something last
    arrived; time.monotonic).
    Written by the warden: `dismissed` (no more is read: say the last word), `verdict` (cut off, why).
    """

    __slots__ = ("connection", "dismissed", "heard", "owes", "resting", "verdict")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.resting = False
        self.owes: Callable[[], bool] = _nothing_owed
        self.heard = time.monotonic()
        self.dismissed = False
        self.verdict: Cause | None = None


class Warden:
    """Ends blocked conversations when the process is told to stop. One for each process, used by `with`.

    A thread waits for `stop`. While draining it dismisses whoever is at rest and has been silent for
    DRAIN_QUIET seconds; after `limits.drain` seconds, or at once when aborting, it cuts off the rest,
    and from then on whoever comes. A service that computes is out of its reach: its connection is
    ended, the thread isn't.

    `on_drain` is called in that thread when the server has been draining for DRAIN_QUIET seconds, and again
    and again until it returns true: for what has to be done though everyone may be blocked.
    """

    def __init__(self, stop: Stop, limits: Limits, on_drain: Callable[[], bool] | None = None) -> None:
        self._stop = stop
        self._on_drain = on_drain
        self._drain = limits.drain
        self._wards: set[Ward] = set()
        # Held while a ward's socket is shut down, and to let a ward go: so that its descriptor is not
        # closed, and its number given to another connection, between the look and the call.
        self._lock = threading.Lock()
        self._aborting = False
        self._leave = Latch()
        self._thread = threading.Thread(target=self._watch, name="bothends-warden", daemon=True)

    def __enter__(self) -> Warden:
        """Start watching."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching. Who is still there stays there."""
        self._leave.set()
        self._thread.join()
        self._leave.close()

    def take(self, connection: socket.socket) -> Ward:
        """Look after a connection. Call `release` before it is closed."""
        ward = Ward(connection)
        with self._lock:
            self._wards.add(ward)
            aborting = self._aborting
        if aborting:
            self.cut(ward, Cause.ABORTED)
        return ward

    def release(self, ward: Ward) -> None:
        """The connection is about to be closed."""
        with self._lock:
            self._wards.discard(ward)

    def cut(self, ward: Ward, cause: Cause) -> None:
        """End a connection now, from any thread: what blocks on it returns (fact 3)."""
        with self._lock:
            if ward in self._wards and ward.verdict is None:
                ward.verdict = cause
                abandon(ward.connection)
                _shut(ward.connection, socket.SHUT_RDWR)

    def _watch(self) -> None:
        poller = select.poll()
        for latch in (self._leave, self._stop.draining, self._stop.aborting):
            poller.register(latch.fileno(), select.POLLIN)
        ready = _ready(poller, None)
        began = time.monotonic()
        deadline = began + self._drain
        poller.unregister(self._stop.draining.fileno())  # set for good: it would be ready for ever
        while self._leave.fileno() not in ready:
            if self._stop.aborting.fileno() in ready or time.monotonic() >= deadline:
                self._abort()
                poller.unregister(self._stop.aborting.fileno())
                _ready(poller, None)
                return
            self._dismiss_the_quiet()
            if self._on_drain is not None and time.monotonic() >= began + DRAIN_QUIET and self._on_drain():
                self._on_drain = None
            ready = _ready(poller, min(_TICK, max(0.0, deadline - time.monotonic())))

    def _dismiss_the_quiet(self) -> None:
        now = time.monotonic()
        with self._lock:
            for ward in self._wards:
                quiet = ward.resting and now - ward.heard >= DRAIN_QUIET
                if quiet and not ward.dismissed and not ward.owes():
                    ward.dismissed = True
                    _shut(ward.connection, socket.SHUT_RD)

    def _abort(self) -> None:
        with self._lock:
            self._aborting = True
            wards = list(self._wards)
        for ward in wards:
            self.cut(ward, Cause.ABORTED)


def converse(connection: socket.socket, exchange: Exchange, limits: Limits, warden: Warden) -> None:
    """Drive an exchange over a connection until it is over; then close both.

    Returns when the peer, the service, a limit or the warden has ended it; raises nothing but what is
    no `Exception`.
    """
    Talk(connection, exchange, limits, warden).run()


class Over(Exception):
    """The connection is gone or given up; nothing can be sent any more."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause)
        self.cause = cause


class Talk:
    """One conversation that may block, in the thread that calls `run`."""

    def __init__(self, connection: socket.socket, exchange: Exchange, limits: Limits, warden: Warden) -> None:
        self.connection = connection
        self.exchange = exchange
        self.limits = limits
        self.warden = warden
        self.ward = warden.take(connection)
        self.moved = self.ward.heard
        self._began = self.moved
        self._chunk = min(limits.chunk, limits.rate or limits.chunk)
        self._granted = {socket.SO_RCVTIMEO: 0, socket.SO_SNDTIMEO: 0}
        self._reading = True

    def run(self) -> None:
        """The whole conversation, from its first word to its closed socket."""
        cause: Cause | None = Cause.ABORTED  # unless we come to another end
        try:
            try:
                self.talk()
                self.part()
                cause = None
            except Over as over:
                cause = over.cause
        finally:
            if cause is not None and cause is not Cause.RESET:
                abandon(self.connection)
            self.fall_silent()
            self.warden.release(self.ward)
            self.connection.close()
            self.exchange.close(cause)

    def talk(self) -> None:
        """Listen and answer until the conversation is over.

        Raises:
            Over: it could not come to its own end.
        """
        exchange = self.exchange
        self.say(exchange.start())
        while True:
            said = exchange.more()
            self.say(said)
            if exchange.over:
                return
            if not self._reading:
                if not said:
                    return
                continue
            # Who has more to say must not wait for the peer, only look: it may have written, or hung up.
            data = self._receive(wait=not said)
            if data:
                self.say(exchange.receive(data))
                if exchange.rest and not exchange.over:
                    self._rest(exchange.rest)
            elif data is not None:
                self._reading = False
                if self.ward.dismissed:
                    self._finish(Cause.DRAINED)
                else:
                    self.say(exchange.end())

    def _finish(self, cause: Cause) -> None:
        """We read no more: the conversation's last word."""
        self.say(self.exchange.finish(cause))
        self.exchange.over = True

    # What a talk with two threads does in another way --------------------------------------------

    def say(self, data: bytes) -> None:
        """Send it, and come back when it is sent."""
        if data:
            self.send(data)

    def part(self) -> None:
        """All is said and sent: hang up, and let the peer close first, for `limits.linger` seconds.

        close() with unread input would send RST, which can destroy our last answer on its way.
        """
        # Not left to close(): where another process or descriptor holds the connection too, only
        # shutdown() tells the peer that we are done.
        _shut(self.connection, socket.SHUT_WR)
        if not self._reading:
            return
        until = time.monotonic() + self.limits.linger
        self.ward.resting = True
        while (left := until - time.monotonic()) > 0:
            self._grant(socket.SO_RCVTIMEO, left)
            try:
                if not self.connection.recv(self.limits.chunk):
                    return
            except OSError:
                return  # the time is over, or the peer has gone without reading all of it
            self.ward.heard = time.monotonic()

    def fall_silent(self) -> None:
        """The connection is about to be closed: nobody may be sending on it any more."""

    # The calls that block --------------------------------------------------------------------------

    def _receive(self, *, wait: bool) -> bytes | None:
        """A chunk, b"" at the peer's EOF, None for neither: nothing yet, or nothing any more."""
        ward = self.ward
        ward.resting = True
        try:
            data = self._read(wait=wait)
        except BlockingIOError:
            if wait:
                self._finish(self._passed())
            return None
        except OSError as error:
            raise self._lost(error) from error
        finally:
            # Who pulls is owed something until it is told to end, so it may be told at any time.
            ward.resting = self.exchange.pulls
        if ward.verdict is not None:
            raise Over(ward.verdict)
        if data:
            ward.heard = self.moved = time.monotonic()
        return data

    def _read(self, *, wait: bool) -> bytes | None:
        flags = 0 if wait else socket.MSG_DONTWAIT
        if wait:
            self._grant(socket.SO_RCVTIMEO, self._patience())
        while True:
            try:
                if self.exchange.peer.boundaries:
                    return self._read_message(flags)
                return self.connection.recv(self._chunk, flags)
            except BlockingIOError:
                if not (wait and self._goes_on(socket.SO_RCVTIMEO)):
                    raise

    def _read_message(self, flags: int) -> bytes | None:
        # An empty message reads like EOF, and is taken for it.
        most = self.limits.message or LARGEST_MESSAGE
        data, _, answer, _ = self.connection.recvmsg(most, 0, flags)
        if answer & socket.MSG_TRUNC:
            self.exchange.fail(MessageTooLong(most, len(data) + 1))
            return None
        return data

    def send(self, data: bytes) -> None:
        """Block until the system has taken all of it.

        Raises:
            Over: the connection is gone, or the idle limit has passed.
        """
        # A message is sent by one call, whatever its size: the kernel takes all of it or nothing.
        piece = len(data) if self.exchange.peer.boundaries else PIECE
        view = memoryview(data)
        while view:
            count = self._send_piece(view[:piece])
            self.moved = time.monotonic()
            self.exchange.took(view[:count])
            view = view[count:]

    def _send_piece(self, piece: memoryview) -> int:
        self._grant(socket.SO_SNDTIMEO, self._patience())
        while True:
            try:
                return self.connection.send(piece, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                if not self._goes_on(socket.SO_SNDTIMEO):
                    raise Over(self._passed()) from None
            except OSError as error:
                raise self._lost(error) from error

    def _lost(self, error: OSError) -> Over:
        if self.ward.verdict is not None:
            return Over(self.ward.verdict)
        if error.errno in GONE:
            return Over(Cause.RESET)
        self.exchange.fail(error)
        return Over(Cause.FAILED)

    # Limits ----------------------------------------------------------------------------------------

    def _rest(self, seconds: float) -> None:
        """Read nothing for a while: the peer has sent too fast. The end of the connection ends it too."""
        poller = select.poll()
        poller.register(self.connection, 0)  # errors and hang-up are told unasked
        self.ward.resting = True
        poller.poll(seconds * 1000)

    def _patience(self) -> float | None:
        """How long the next call may block, at least a moment; None for as long as it likes."""
        now = time.monotonic()
        limit = self.exchange.next_limit(self._began, now)
        return None if limit is None else limit[0] - now

    def _goes_on(self, option: int) -> bool:
        """Whether a call that came back for its time limit is made again, with what is left of it:
        because something moved in the other direction meanwhile, or the hands have been shaken."""
        limit = self.exchange.next_limit(self._began, self.moved)
        left = None if limit is None else limit[0] - time.monotonic()
        if left is None or left > 0:
            self._grant(option, left)
            return True
        return False

    def _passed(self) -> Cause:
        """The limit that a call has come back for."""
        limit = self.exchange.next_limit(self._began, self.moved)
        return Cause.IDLE if limit is None else limit[1]

    def _grant(self, option: int, seconds: float | None) -> None:
        """Let the kernel end calls in this direction after `seconds`; one system call, if it changes."""
        # Whole milliseconds, so that the same limit is the same number, whatever the clock says; and
        # at least one: zero would be no limit at all.
        wanted = 0 if seconds is None else max(1, round(seconds * 1000))
        if wanted != self._granted[option]:
            self._granted[option] = wanted
            timeval = struct.pack("ll", wanted // 1000, wanted % 1000 * 1000)
            with contextlib.suppress(OSError):  # the connection is gone: the call itself will say so
                self.connection.setsockopt(socket.SOL_SOCKET, option, timeval)


def _shut(connection: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):  # ENOTCONN: the peer has reset it meanwhile
        connection.shutdown(how)


def _nothing_owed() -> bool:
    return False


def _ready(poller: select.poll, timeout: float | None) -> set[int]:
    return {descriptor for descriptor, _ in poller.poll(None if timeout is None else timeout * 1000)}
