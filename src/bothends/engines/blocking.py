"""One connection on a blocking socket: recv() waits for the peer, send() for space in the send buffer.

Connects a ConversationDriver to a blocking socket, for every engine with a thread or process for each
connection. A chunk takes one recv() and a reply one send(), as in every textbook. The states are those of
`connection_state.py`; the rest of this module is about ending a call that blocks, which textbooks leave out.

What the kernel does, and what follows:

1. A blocked recv() or send() returns because of the peer, a signal, SO_RCVTIMEO or SO_SNDTIMEO, or a
   shutdown() on the socket, but not when another thread closes the descriptor. So time limits are set as
   those two options (socket(7)), which takes no system call if there is no limit, and a `Watchdog` ends
   connections from outside. It needs no signals, so it works in any thread.
2. shutdown(SHUT_RD) on Linux sends nothing to a TCP peer. It wakes the reader, which still receives the data
   that had arrived, then EOF. The kernel still acknowledges later data, but after our FIN it answers it with
   RST (tcp_rcv_state_process). On a UNIX socket the peer's next send fails with EPIPE. So this call is used
   only for connections that receive nothing.
3. shutdown(SHUT_RDWR) also wakes a blocked sender, with EPIPE, but it sends FIN after what is in the send
   buffer, so a truncated answer would look whole. `reset_now()` sends RST and wakes both. A UNIX socket has
   neither FIN nor RST, so there shutdown() does.
4. A blocked send() of a large buffer returns when all of it fits into the send buffer, or, when it times out,
   with the part that did. So the pieces are small enough that a slow reader shows progress.
5. A thread that blocks in send() does not read. That gives backpressure for free, but also a deadlock with a
   peer that sends without end before it reads anything. Only the idle timeout ends it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Final

from bothends.engines.acceptor import AcceptedConnection
from bothends.engines.base import DRAIN_IDLE, DRAIN_TICK, EngineContext, Limits
from bothends.engines.connection_state import Action, ConnectionState, State
from bothends.engines.driver import ConversationDriver
from bothends.engines.nonblocking import CONNECTION_LOST, MAX_PACKET_SIZE
from bothends.engines.poll_loop import PollLoop
from bothends.engines.shutdown import ShutdownFlag, ShutdownFlags
from bothends.errors import MessageTooLong
from bothends.events import CloseReason
from bothends.sockets.options import reset_now, reset_on_close

# Maximum size of one send(), in bytes: a fraction of an autotuned send buffer (4 MB, net.ipv4.tcp_wmem), so
# that a send() that blocks for a second means a slow peer, not a large buffer.
MAX_SEND_SIZE: Final = 256 * 1024


class Watchdog:
    """Ends blocked conversations when the process shuts down. One for each process. A context manager.

    A thread waits for `stop`. While draining it closes each connection that is idle and has received nothing
    for DRAIN_IDLE seconds. After `limits.drain` seconds, or at once when aborting, it aborts the remaining
    connections, and from then on every new one. It cannot interrupt a service that computes: it ends the
    connection, not the thread.

    Args:
        stop: the flags to wait for.
        limits: for `limits.drain`.
        on_drain: called in the watchdog's thread DRAIN_IDLE seconds after draining started, and repeatedly
            until it returns True. For work that must be done even if all other threads are blocked.
    """

    def __init__(
        self, stop: ShutdownFlags, limits: Limits, on_drain: Callable[[], bool] | None = None
    ) -> None:
        self._stop = stop
        self._on_drain = on_drain
        self._drain = limits.drain
        self._connections: set[BlockingConnection] = set()
        # Held during shutdown() of a socket, and in `release`. Otherwise the descriptor could be closed, and
        # its number reused for another connection, between the check and the call.
        self._lock = threading.Lock()
        self._aborting = False
        self._exit_flag = ShutdownFlag()
        self._thread = threading.Thread(target=self._run, name="bothends-watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the thread. Connections still open are left alone."""
        self._exit_flag.set()
        self._thread.join()
        self._exit_flag.close()

    def watch(self, connection: BlockingConnection) -> None:
        """Watch a connection. Call `release` before closing its socket."""
        with self._lock:
            self._connections.add(connection)
            aborting = self._aborting
        if aborting:
            self.abort(connection, CloseReason.ABORTED)

    def release(self, connection: BlockingConnection) -> None:
        """Stop watching a connection, whose socket is about to be closed."""
        with self._lock:
            self._connections.discard(connection)

    def abort(self, connection: BlockingConnection, cause: CloseReason) -> None:
        """Abort a connection, so that calls that block on it return (fact 3). Safe from any thread."""
        with self._lock:
            if connection in self._connections and connection.abort_cause is None:
                connection.abort_cause = cause
                if connection.fin_sent:
                    _shutdown(connection.socket, socket.SHUT_RD)
                elif not reset_now(connection.socket):
                    reset_on_close(connection.socket)
                    _shutdown(connection.socket, socket.SHUT_RDWR)

    def _run(self) -> None:
        loop = PollLoop(self._stop)
        loop.add(self._exit_flag.fileno(), _no_op)
        loop.run_once(None)
        draining_since = time.monotonic()
        deadline = draining_since + self._drain
        while not self._exit_flag.is_set():
            if loop.aborting_since is not None or time.monotonic() >= deadline:
                self._abort_all()
                self._exit_flag.wait()
                return
            self._drain_idle_connections()
            is_due = time.monotonic() >= draining_since + DRAIN_IDLE
            if self._on_drain is not None and is_due and self._on_drain():
                self._on_drain = None
            loop.run_once(min(DRAIN_TICK, deadline - time.monotonic()))

    def _drain_idle_connections(self) -> None:
        now = time.monotonic()
        with self._lock:
            for each in self._connections:
                is_idle = each.idle and now - each.core.last_received >= DRAIN_IDLE
                if is_idle and not each.drain_requested and not each.unsent:
                    each.drain_requested = True
                    _shutdown(each.socket, socket.SHUT_RD)

    def _abort_all(self) -> None:
        with self._lock:
            self._aborting = True
            connections = list(self._connections)
        for connection in connections:
            self.abort(connection, CloseReason.ABORTED)


def run_conversation(context: EngineContext, accepted: AcceptedConnection, watchdog: Watchdog) -> None:
    """Open a conversation on a connection, and run it until the connection is closed.

    Returns when the peer, the service, a limit or the watchdog has ended the conversation. Exceptions of the
    service end it, too; only a BaseException (KeyboardInterrupt, SystemExit) propagates.
    """
    driver = ConversationDriver(context, accepted.listener, accepted.peer)
    BlockingConnection(accepted.connection, driver, context.limits, watchdog).run()


class ConversationEnded(Exception):
    """The connection is lost or aborted, so nothing more can be sent. `cause` has the reason."""

    def __init__(self, cause: CloseReason) -> None:
        super().__init__(cause)
        self.cause = cause


class BlockingConnection:
    """One conversation on a blocking socket, in the thread that calls `run`.

    Attributes, written by that thread:
        idle: it waits for the peer, so it may be closed while draining.
        fin_sent: everything has been sent, and our FIN, so an abort needs no RST.

    Attributes, written by the Watchdog:
        drain_requested: the receiving direction was shut down, so send the final data and close.
        abort_cause: why the connection was aborted, or None.
    """

    def __init__(
        self, connection: socket.socket, driver: ConversationDriver, limits: Limits, watchdog: Watchdog
    ) -> None:
        self.socket = connection
        self.driver = driver
        self.limits = limits
        self.watchdog = watchdog
        self.core = ConnectionState(driver, limits, time.monotonic())
        self.idle = False
        self.fin_sent = False
        self.drain_requested = False
        self.abort_cause: CloseReason | None = None
        self._read_size = min(limits.chunk, limits.rate or limits.chunk)
        self._applied_timeouts = {socket.SO_RCVTIMEO: 0, socket.SO_SNDTIMEO: 0}
        self._reset = False
        watchdog.watch(self)

    def run(self) -> None:
        """Run the conversation until the socket is closed."""
        try:
            self.serve()
        except ConversationEnded as ended:
            if ended.cause is CloseReason.RESET:
                self.core.lose(ended.cause)
            else:
                self.core.abort(ended.cause)
            self._settle()
        except BaseException:
            self.core.abort(CloseReason.ABORTED)
            self._settle()
            raise
        finally:
            if self._reset:
                reset_on_close(self.socket)
            elif not self.fin_sent:
                # Not left to close(): if another process or descriptor also holds the connection, only
                # shutdown() sends FIN.
                _shutdown(self.socket, socket.SHUT_WR)
            self.stop_writer()
            self.watchdog.release(self)
            self.socket.close()
            self.core.closed()

    def serve(self) -> None:
        """Read and reply until the connection must be closed.

        Raises:
            ConversationEnded: the connection was lost or aborted.
        """
        core, driver = self.core, self.driver
        self.write(driver.start())
        # While it is open, there is nothing to do but to read and reply.
        while (core.state is State.OPEN and not driver.finished) or self._settle():
            produced = b""
            if driver.wants_pull:
                produced = core.produce()
                self.write(produced)
                self.write(core.expire(time.monotonic(), self.unsent))
                if not self._settle():
                    return
            if core.state is not State.OPEN and core.state is not State.LINGERING:
                if not produced:
                    driver.finished = True  # nothing more will be read that could make it produce
                continue
            # A pull producer with more data must not wait for the peer, only check whether it has sent or
            # closed.
            self._take(self._receive(wait=not produced))

    def _take(self, data: bytes | None) -> None:
        """Pass on what `_receive` returned."""
        core = self.core
        if data:
            self.write(core.receive(data, time.monotonic()))
            if self.driver.paused_until is not None and not self.driver.finished:
                self._pause_reading(self.driver.paused_until)
        elif data is not None:
            if self.drain_requested and core.state is State.OPEN:
                self.write(core.stop(CloseReason.DRAINED))
            else:
                self.write(core.receive_eof(time.monotonic()))

    def _settle(self) -> bool:
        """Do what the core says. Returns whether to go on."""
        action = self.core.settle(time.monotonic(), self.unsent)
        if action is Action.NONE and self.core.state in (State.FLUSHING, State.CLOSING):
            self.flush()
            action = self.core.settle(time.monotonic(), 0)
        if action is Action.SHUTDOWN:
            self.fin_sent = True
            _shutdown(self.socket, socket.SHUT_WR)
            return True
        self._reset = action is Action.RESET
        return action is Action.NONE

    # Overridden for connections with a writer thread ---------------------------------------------

    @property
    def unsent(self) -> int:
        """Bytes that `write` has queued and nothing has sent yet."""
        return 0

    def write(self, data: bytes) -> None:
        """Send data. Blocks until the kernel has taken all of it."""
        if data:
            self.send(data)

    def flush(self) -> None:
        """Wait until everything is sent."""

    def stop_writer(self) -> None:
        """Stop the writer thread, because the connection is about to be closed. Does nothing without one."""

    # Blocking calls --------------------------------------------------------------------------------

    def _receive(self, *, wait: bool) -> bytes | None:
        """Return a chunk, b"" at EOF, or None: nothing has arrived yet, or nothing more will be read."""
        self.idle = True
        try:
            data = self._read(wait=wait)
        except BlockingIOError:
            if wait:
                self.write(self.core.expire(time.monotonic(), 0))
            return None
        except OSError as error:
            raise self._classify_error(error) from error
        finally:
            # A pull producer has unsent data until it is stopped, so it may be stopped at any time.
            self.idle = self.driver.wants_pull
        if self.abort_cause is not None:
            raise ConversationEnded(self.abort_cause)
        return data

    def _read(self, *, wait: bool) -> bytes | None:
        flags = 0 if wait else socket.MSG_DONTWAIT
        if wait:
            self._set_timeout(socket.SO_RCVTIMEO, self.core.blocking_timeout(time.monotonic()))
        while True:
            try:
                if self.driver.peer.message_oriented:
                    return self._read_message(flags)
                return self.socket.recv(self._read_size, flags)
            except BlockingIOError:
                if not (wait and self._may_retry(socket.SO_RCVTIMEO)):
                    raise

    def _read_message(self, flags: int) -> bytes | None:
        # recvmsg() returns the same for an empty message as for EOF, so an empty message counts as EOF.
        max_size = self.limits.message or MAX_PACKET_SIZE
        data, _, message_flags, _ = self.socket.recvmsg(max_size, 0, flags)
        if message_flags & socket.MSG_TRUNC:
            self.driver.fail(MessageTooLong(max_size, len(data) + 1))
            return None
        return data

    def send(self, data: bytes) -> None:
        """Send data. Blocks until the kernel has taken all of it.

        Raises:
            ConversationEnded: the connection was lost or aborted, or a time limit has expired.
        """
        # A message takes one call, whatever its size: the kernel takes all of it or nothing.
        piece_size = len(data) if self.driver.peer.message_oriented else MAX_SEND_SIZE
        view = memoryview(data)
        while view:
            count = self._send_piece(view[:piece_size])
            self.core.last_sent = time.monotonic()
            self.driver.bytes_sent(view[:count])
            view = view[count:]
            if view and (limit := self.core.deadline()) and self.core.last_sent >= limit[0]:
                raise ConversationEnded(limit[1])

    def _send_piece(self, piece: memoryview) -> int:
        self._set_timeout(socket.SO_SNDTIMEO, self.core.blocking_timeout(time.monotonic()))
        while True:
            try:
                return self.socket.send(piece, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                if not self._may_retry(socket.SO_SNDTIMEO):
                    limit = self.core.deadline()
                    raise ConversationEnded(CloseReason.IDLE if limit is None else limit[1]) from None
            except OSError as error:
                raise self._classify_error(error) from error

    def _classify_error(self, error: OSError) -> ConversationEnded:
        if self.abort_cause is not None:
            return ConversationEnded(self.abort_cause)
        if error.errno in CONNECTION_LOST:
            return ConversationEnded(CloseReason.RESET)
        self.driver.fail(error)
        return ConversationEnded(CloseReason.FAILED)

    # Limits ----------------------------------------------------------------------------------------

    def _pause_reading(self, until: float) -> None:
        """Pause reading because of the rate limit. A reset ends the pause early."""
        poller = select.poll()
        poller.register(self.socket, 0)  # POLLERR and POLLHUP are always reported (poll(2))
        self.idle = True
        poller.poll(max(0.0, until - time.monotonic()) * 1000)
        self.driver.paused_until = None

    def _may_retry(self, option: int) -> bool:
        """Whether to repeat a call that timed out, with the rest of the time limit as the new timeout.

        The limit has moved if data was sent in the other direction meanwhile, or the handshake has completed.
        """
        limit = self.core.deadline()
        timeout = None if limit is None else limit[0] - time.monotonic()
        if timeout is None or timeout > 0:
            self._set_timeout(option, timeout)
            return True
        return False

    def _set_timeout(self, option: int, seconds: float | None) -> None:
        """Set the timeout of one direction (None: no timeout). No system call if it is unchanged."""
        # Rounded to milliseconds, so that one limit always gives the same number; at least 1, because the
        # kernel takes 0 for no timeout.
        milliseconds = 0 if seconds is None else max(1, round(seconds * 1000))
        if milliseconds != self._applied_timeouts[option]:
            self._applied_timeouts[option] = milliseconds
            timeval = struct.pack("ll", milliseconds // 1000, milliseconds % 1000 * 1000)
            with contextlib.suppress(OSError):  # the connection is lost, which the next call reports
                self.socket.setsockopt(socket.SOL_SOCKET, option, timeval)


def _shutdown(connection: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):  # ENOTCONN: the peer has reset the connection
        connection.shutdown(how)


def _no_op() -> None:
    pass
