"""One connection that may block: recv() waits for the peer, send() waits for room.

The driver between an Exchange and a blocking socket, for every engine that gives a thread or a
process to a connection. Reading is one recv() a chunk and writing one send() a piece, as in every
textbook; what the textbook leaves out is how it ends.

What the kernel does, and what follows:

1. A blocked recv() or send() comes back for the peer, for a signal, for SO_RCVTIMEO and SO_SNDTIMEO,
   and when someone calls shutdown() on the socket; not when another thread closes the descriptor.
   So limits are given to the kernel as those two options (socket(7)), which costs no call where
   there is no limit, and a `Watchdog` ends whoever has to end by shutdown(). It needs no signals, so
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

from bothends.engines.base import DRAIN_IDLE, Limits
from bothends.engines.driver import ConversationDriver
from bothends.engines.nonblocking import CONNECTION_LOST, MAX_PACKET_SIZE
from bothends.engines.shutdown import ShutdownFlag, ShutdownFlags
from bothends.errors import MessageTooLong
from bothends.events import CloseReason
from bothends.sockets.options import reset_on_close

# Most bytes that one send() is given: a fraction of what an autotuned send buffer holds (4 MB,
# net.ipv4.tcp_wmem), so that a send() that blocks for a second means a slow peer, not a large piece.
MAX_SEND_SIZE: Final = 256 * 1024

# How often a draining warden looks who has come to rest.
_DRAIN_TICK: Final = 0.05


class WatchedConnection:
    """One live connection, as its warden sees it. Made by `Watchdog.take`.

    Written by whoever drives the connection: `resting` (it waits for the peer, or is free to be told
    to end), `has_unsent` (whether something waits to be sent meanwhile), `heard` (when something last
    arrived; time.monotonic).
    Written by the warden: `drain_requested` (no more is read: say the last word), `verdict` (cut off, why).
    """

    __slots__ = ("abort_cause", "connection", "drain_requested", "has_unsent", "idle", "last_received")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.idle = False
        self.has_unsent: Callable[[], bool] = _nothing_unsent
        self.last_received = time.monotonic()
        self.drain_requested = False
        self.abort_cause: CloseReason | None = None


class Watchdog:
    """Ends blocked conversations when the process is told to stop. One for each process, used by `with`.

    A thread waits for `stop`. While draining it dismisses whoever is at rest and has been silent for
    DRAIN_QUIET seconds; after `limits.drain` seconds, or at once when aborting, it cuts off the rest,
    and from then on whoever comes. A service that computes is out of its reach: its connection is
    ended, the thread isn't.

    `on_drain` is called in that thread when the server has been draining for DRAIN_QUIET seconds, and again
    and again until it returns true: for what has to be done though everyone may be blocked.
    """

    def __init__(
        self, stop: ShutdownFlags, limits: Limits, on_drain: Callable[[], bool] | None = None
    ) -> None:
        self._stop = stop
        self._on_drain = on_drain
        self._drain = limits.drain
        self._watched: set[WatchedConnection] = set()
        # Held while a ward's socket is shut down, and to let a ward go: so that its descriptor is not
        # closed, and its number given to another connection, between the look and the call.
        self._lock = threading.Lock()
        self._aborting = False
        self._exit_flag = ShutdownFlag()
        self._thread = threading.Thread(target=self._run, name="bothends-warden", daemon=True)

    def __enter__(self) -> Watchdog:
        """Start watching."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching. Who is still there stays there."""
        self._exit_flag.set()
        self._thread.join()
        self._exit_flag.close()

    def watch(self, connection: socket.socket) -> WatchedConnection:
        """Look after a connection. Call `release` before it is closed."""
        ward = WatchedConnection(connection)
        with self._lock:
            self._watched.add(ward)
            aborting = self._aborting
        if aborting:
            self.abort(ward, CloseReason.ABORTED)
        return ward

    def release(self, watched: WatchedConnection) -> None:
        """The connection is about to be closed."""
        with self._lock:
            self._watched.discard(watched)

    def abort(self, watched: WatchedConnection, cause: CloseReason) -> None:
        """End a connection now, from any thread: what blocks on it returns (fact 3)."""
        with self._lock:
            if watched in self._watched and watched.abort_cause is None:
                watched.abort_cause = cause
                reset_on_close(watched.connection)
                _shutdown(watched.connection, socket.SHUT_RDWR)

    def _run(self) -> None:
        poller = select.poll()
        for latch in (self._exit_flag, self._stop.draining, self._stop.aborting):
            poller.register(latch.fileno(), select.POLLIN)
        ready = _poll(poller, None)
        began = time.monotonic()
        deadline = began + self._drain
        poller.unregister(self._stop.draining.fileno())  # set for good: it would be ready for ever
        while self._exit_flag.fileno() not in ready:
            if self._stop.aborting.fileno() in ready or time.monotonic() >= deadline:
                self._abort_all()
                poller.unregister(self._stop.aborting.fileno())
                _poll(poller, None)
                return
            self._drain_idle_connections()
            if self._on_drain is not None and time.monotonic() >= began + DRAIN_IDLE and self._on_drain():
                self._on_drain = None
            ready = _poll(poller, min(_DRAIN_TICK, max(0.0, deadline - time.monotonic())))

    def _drain_idle_connections(self) -> None:
        now = time.monotonic()
        with self._lock:
            for ward in self._watched:
                quiet = ward.idle and now - ward.last_received >= DRAIN_IDLE
                if quiet and not ward.drain_requested and not ward.has_unsent():
                    ward.drain_requested = True
                    _shutdown(ward.connection, socket.SHUT_RD)

    def _abort_all(self) -> None:
        with self._lock:
            self._aborting = True
            wards = list(self._watched)
        for ward in wards:
            self.abort(ward, CloseReason.ABORTED)


def run_conversation(
    connection: socket.socket, driver: ConversationDriver, limits: Limits, watchdog: Watchdog
) -> None:
    """Drive an exchange over a connection until it is over; then close both.

    Returns when the peer, the service, a limit or the warden has ended it; raises nothing but what is
    no `Exception`.
    """
    BlockingConnection(connection, driver, limits, watchdog).run()


class ConversationEnded(Exception):
    """The connection is gone or given up; nothing can be sent any more."""

    def __init__(self, cause: CloseReason) -> None:
        super().__init__(cause)
        self.cause = cause


class BlockingConnection:
    """One conversation that may block, in the thread that calls `run`."""

    def __init__(
        self, connection: socket.socket, driver: ConversationDriver, limits: Limits, watchdog: Watchdog
    ) -> None:
        self.connection = connection
        self.driver = driver
        self.limits = limits
        self.watchdog = watchdog
        self.watched = watchdog.watch(connection)
        self.last_activity = self.watched.last_received
        self._opened_at = self.last_activity
        self._read_size = min(limits.chunk, limits.rate or limits.chunk)
        self._applied_timeouts = {socket.SO_RCVTIMEO: 0, socket.SO_SNDTIMEO: 0}
        self._reading = True

    def run(self) -> None:
        """The whole conversation, from its first word to its closed socket."""
        cause: CloseReason | None = CloseReason.ABORTED  # unless we come to another end
        try:
            try:
                self.serve()
                self.close_gracefully()
                cause = None
            except ConversationEnded as over:
                cause = over.cause
        finally:
            if cause is not None and cause is not CloseReason.RESET:
                reset_on_close(self.connection)
            self.stop_writer()
            self.watchdog.release(self.watched)
            self.connection.close()
            self.driver.close(cause)

    def serve(self) -> None:
        """Listen and answer until the conversation is over.

        Raises:
            Over: it could not come to its own end.
        """
        exchange = self.driver
        self.write(exchange.start())
        while True:
            said = exchange.produce()
            self.write(said)
            if exchange.finished:
                return
            if not self._reading:
                if not said:
                    return
                continue
            # Who has more to say must not wait for the peer, only look: it may have written, or hung up.
            data = self._receive(wait=not said)
            if data:
                self.write(exchange.receive(data))
                if exchange.read_pause and not exchange.finished:
                    self._pause_reading(exchange.read_pause)
            elif data is not None:
                self._reading = False
                if self.watched.drain_requested:
                    self._stop_reading(CloseReason.DRAINED)
                else:
                    self.write(exchange.receive_eof())

    def _stop_reading(self, cause: CloseReason) -> None:
        """We read no more: the conversation's last word."""
        self.write(self.driver.stop_reading(cause))
        self.driver.finished = True

    # What a talk with two threads does in another way --------------------------------------------

    def write(self, data: bytes) -> None:
        """Send it, and come back when it is sent."""
        if data:
            self.send(data)

    def close_gracefully(self) -> None:
        """All is said and sent: hang up, and let the peer close first, for `limits.linger` seconds.

        close() with unread input would send RST, which can destroy our last answer on its way.
        """
        # Not left to close(): where another process or descriptor holds the connection too, only
        # shutdown() tells the peer that we are done.
        _shutdown(self.connection, socket.SHUT_WR)
        if not self._reading:
            return
        until = time.monotonic() + self.limits.linger
        self.watched.idle = True
        while (left := until - time.monotonic()) > 0:
            self._set_timeout(socket.SO_RCVTIMEO, left)
            try:
                if not self.connection.recv(self.limits.chunk):
                    return
            except OSError:
                return  # the time is over, or the peer has gone without reading all of it
            self.watched.last_received = time.monotonic()

    def stop_writer(self) -> None:
        """The connection is about to be closed: nobody may be sending on it any more."""

    # The calls that block --------------------------------------------------------------------------

    def _receive(self, *, wait: bool) -> bytes | None:
        """A chunk, b"" at the peer's EOF, None for neither: nothing yet, or nothing any more."""
        ward = self.watched
        ward.idle = True
        try:
            data = self._read(wait=wait)
        except BlockingIOError:
            if wait:
                self._stop_reading(self._expired_limit())
            return None
        except OSError as error:
            raise self._classify_error(error) from error
        finally:
            # Who pulls is owed something until it is told to end, so it may be told at any time.
            ward.idle = self.driver.wants_pull
        if ward.abort_cause is not None:
            raise ConversationEnded(ward.abort_cause)
        if data:
            ward.last_received = self.last_activity = time.monotonic()
        return data

    def _read(self, *, wait: bool) -> bytes | None:
        flags = 0 if wait else socket.MSG_DONTWAIT
        if wait:
            self._set_timeout(socket.SO_RCVTIMEO, self._timeout())
        while True:
            try:
                if self.driver.peer.message_oriented:
                    return self._read_message(flags)
                return self.connection.recv(self._read_size, flags)
            except BlockingIOError:
                if not (wait and self._may_retry(socket.SO_RCVTIMEO)):
                    raise

    def _read_message(self, flags: int) -> bytes | None:
        # An empty message reads like EOF, and is taken for it.
        most = self.limits.message or MAX_PACKET_SIZE
        data, _, answer, _ = self.connection.recvmsg(most, 0, flags)
        if answer & socket.MSG_TRUNC:
            self.driver.fail(MessageTooLong(most, len(data) + 1))
            return None
        return data

    def send(self, data: bytes) -> None:
        """Block until the system has taken all of it.

        Raises:
            Over: the connection is gone, or the idle limit has passed.
        """
        # A message is sent by one call, whatever its size: the kernel takes all of it or nothing.
        piece = len(data) if self.driver.peer.message_oriented else MAX_SEND_SIZE
        view = memoryview(data)
        while view:
            count = self._send_piece(view[:piece])
            self.last_activity = time.monotonic()
            self.driver.bytes_sent(view[:count])
            view = view[count:]

    def _send_piece(self, piece: memoryview) -> int:
        self._set_timeout(socket.SO_SNDTIMEO, self._timeout())
        while True:
            try:
                return self.connection.send(piece, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                if not self._may_retry(socket.SO_SNDTIMEO):
                    raise ConversationEnded(self._expired_limit()) from None
            except OSError as error:
                raise self._classify_error(error) from error

    def _classify_error(self, error: OSError) -> ConversationEnded:
        if self.watched.abort_cause is not None:
            return ConversationEnded(self.watched.abort_cause)
        if error.errno in CONNECTION_LOST:
            return ConversationEnded(CloseReason.RESET)
        self.driver.fail(error)
        return ConversationEnded(CloseReason.FAILED)

    # Limits ----------------------------------------------------------------------------------------

    def _pause_reading(self, seconds: float) -> None:
        """Read nothing for a while: the peer has sent too fast. The end of the connection ends it too."""
        poller = select.poll()
        poller.register(self.connection, 0)  # errors and hang-up are told unasked
        self.watched.idle = True
        poller.poll(seconds * 1000)

    def _timeout(self) -> float | None:
        """How long the next call may block, at least a moment; None for as long as it likes."""
        now = time.monotonic()
        limit = self.driver.next_limit(self._opened_at, now)
        return None if limit is None else limit[0] - now

    def _may_retry(self, option: int) -> bool:
        """Whether a call that came back for its time limit is made again, with what is left of it:
        because something moved in the other direction meanwhile, or the hands have been shaken."""
        limit = self.driver.next_limit(self._opened_at, self.last_activity)
        left = None if limit is None else limit[0] - time.monotonic()
        if left is None or left > 0:
            self._set_timeout(option, left)
            return True
        return False

    def _expired_limit(self) -> CloseReason:
        """The limit that a call has come back for."""
        limit = self.driver.next_limit(self._opened_at, self.last_activity)
        return CloseReason.IDLE if limit is None else limit[1]

    def _set_timeout(self, option: int, seconds: float | None) -> None:
        """Let the kernel end calls in this direction after `seconds`; one system call, if it changes."""
        # Whole milliseconds, so that the same limit is the same number, whatever the clock says; and
        # at least one: zero would be no limit at all.
        wanted = 0 if seconds is None else max(1, round(seconds * 1000))
        if wanted != self._applied_timeouts[option]:
            self._applied_timeouts[option] = wanted
            timeval = struct.pack("ll", wanted // 1000, wanted % 1000 * 1000)
            with contextlib.suppress(OSError):  # the connection is gone: the call itself will say so
                self.connection.setsockopt(socket.SOL_SOCKET, option, timeval)


def _shutdown(connection: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):  # ENOTCONN: the peer has reset it meanwhile
        connection.shutdown(how)


def _nothing_unsent() -> bool:
    return False


def _poll(poller: select.poll, timeout: float | None) -> set[int]:
    return {descriptor for descriptor, _ in poller.poll(None if timeout is None else timeout * 1000)}
