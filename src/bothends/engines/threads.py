"""Engine `threads`: a thread for each connection.

    main thread:    poll(listeners) -> accept() -> start a thread -> poll(listeners) -> ...
    each thread:    recv() -> send() -> recv() -> ... -> close()

Each conversation runs as if it were the only one, and one that waits does not delay the others. The costs: a
stack for each peer (8 MB of address space, a few dozen KB of memory), a context switch for each message, and
in CPython only one thread computes at a time.

A service that pushes to its peers gets two threads for each connection. A push must never wait for a peer
that does not read, so pushed data goes into a send queue, which a writer thread empties at that peer's pace.
And because the conversations of such a service share state, they are called one at a time.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import socket
import threading
from collections.abc import Callable
from typing import Any, ClassVar, Final

from bothends.engines.acceptor import AcceptedConnection, Acceptor
from bothends.engines.admission import AdmissionControl
from bothends.engines.base import Engine, EngineContext, Limits
from bothends.engines.blocking import (
    MAX_SEND_SIZE,
    BlockingConnection,
    ConversationEnded,
    Watchdog,
    run_conversation,
)
from bothends.engines.driver import ConversationDriver
from bothends.engines.poll_loop import ThreadCallbacks
from bothends.events import CloseReason, ConnectionRejected, RejectReason
from bothends.services.base import Peer, Push
from bothends.sockets import Listener

# Seconds to wait for the threads after all connections were aborted. A thread that still runs then computes
# inside a service, which cannot be interrupted: it is abandoned, as a daemon thread.
ABORT_GRACE: Final = 1.0


class ThreadsEngine(Engine):
    """A thread for each connection, which blocks in recv() and send().

    A thread that is still inside a service when the drain timeout expires is abandoned: its connection is
    closed, `run` returns, and the thread ends with the process.
    """

    name = "threads"
    summary = "a thread for each connection, which blocks in recv() and send()"
    datagrams = False
    supports_push = True
    why_not: ClassVar = {
        "datagrams": "a datagram has no connection to hand to a thread: use pool, or an engine that "
        "waits for readiness",
    }

    def run(self) -> None:
        """Serve until asked to stop."""
        context = self.context
        admission = AdmissionControl(context)
        with (
            Watchdog(context.stop, context.limits) as watchdog,
            Acceptor(context, admission) as acceptor,
            contextlib.closing(ThreadCallbacks(acceptor.poll_loop)) as main_thread,
        ):

            def release(peer: Peer, thread: threading.Thread) -> None:
                thread.join()  # it is about to exit
                admission.release(peer)

            def serve(accepted: AcceptedConnection) -> None:
                try:
                    if lock is None:
                        run_conversation(context, accepted, watchdog)
                    else:
                        run_pushing_conversation(context, accepted, watchdog, lock)
                finally:
                    accepted.connection.close()
                    main_thread.post(functools.partial(release, accepted.peer, threading.current_thread()))

            lock = threading.RLock() if context.service.pushes else None
            for accepted in acceptor.accepted():
                thread = threading.Thread(target=serve, args=(accepted,), daemon=True)
                thread.name = f"bothends-connection-{accepted.peer.connection}"
                try:
                    thread.start()
                except RuntimeError:  # pthread_create(3), EAGAIN: a limit on threads or memory
                    accepted.connection.close()
                    if context.observe is not None:
                        reason = "no thread could be started"
                        context.observe(
                            ConnectionRejected(accepted.peer.address, reason, RejectReason.THREAD)
                        )
                    admission.release(accepted.peer)
                    admission.pause(errno.EAGAIN)
                else:
                    admission.resume()
            acceptor.poll_loop.run_until(
                lambda: admission.open_count == 0, drain=context.limits.drain, grace=ABORT_GRACE
            )


def run_pushing_conversation(
    context: EngineContext, accepted: AcceptedConnection, watchdog: Watchdog, lock: Any
) -> None:
    """As `run_conversation`, for a service that pushes. `lock`: an RLock, the same for all conversations.

    A second thread sends, so that pushed data reaches the peer while this one waits in recv().
    """
    connection, peer, listener = accepted
    send_queue = SendQueue(context.limits)
    driver = SerializedDriver(lock, context, listener, peer, send_queue.push)
    BlockingConnectionWithWriter(connection, driver, context.limits, watchdog, send_queue).run()


class SerializedDriver(ConversationDriver):
    """A driver that calls the conversations of a service one at a time.

    Services need not be thread-safe. A service that pushes keeps a list of its members, which one
    conversation may change while another iterates over it.
    """

    __slots__ = ("_lock",)

    def __init__(self, lock: Any, context: EngineContext, listener: Listener, peer: Peer, push: Push) -> None:
        self._lock = lock
        with lock:
            super().__init__(context, listener, peer, push)

    def start(self) -> bytes:
        with self._lock:
            return super().start()

    def receive(self, data: bytes, now: float) -> bytes:
        with self._lock:
            return super().receive(data, now)

    def stop_reading(self, cause: CloseReason) -> bytes:
        with self._lock:
            return super().stop_reading(cause)

    def produce(self) -> bytes:
        with self._lock:
            return super().produce()

    def close(self, cause: CloseReason | None = None) -> None:
        with self._lock:
            super().close(cause)


class SendQueue:
    """The write buffer of one peer: filled by any thread, emptied by the peer's writer thread."""

    def __init__(self, limits: Limits) -> None:
        self.overflowed = False
        self.on_overflow: Callable[[], object] = _no_op
        self._push_limit = limits.posted
        self._changed = threading.Condition()
        self._items: collections.deque[tuple[bytes, bool]] = collections.deque()
        self._closed = False  # accepts no more data
        self._discarded = False  # and returns no more data
        self._unsent = 0  # bytes, including those that the writer is sending
        self._pushed = 0  # bytes of `_unsent` that were pushed

    def push(self, data: bytes) -> None:
        """Queue pushed data. Never blocks.

        Calls `on_overflow`, once, when more than `limits.posted` bytes of pushed data are unsent.
        """
        if self._put(data, pushed=True) > self._push_limit and not self.overflowed:
            self.overflowed = True
            self.on_overflow()

    def reply(self, data: bytes) -> None:
        """Queue a reply."""
        self._put(data, pushed=False)

    def _put(self, data: bytes, *, pushed: bool) -> int:
        with self._changed:
            if data and not self._closed:
                self._items.append((data, pushed))
                self._unsent += len(data)
                self._pushed += len(data) * pushed
                self._changed.notify_all()
            return self._pushed

    def get(self, limit: int) -> tuple[bytes, int]:
        """Wait for data to send.

        Joins queued items up to `limit` bytes; an item larger than that is returned alone.

        Returns: the data, and how many of its bytes were pushed. The data is b"" once the queue is closed and
            empty.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            pieces: list[bytes] = []
            size = pushed = 0
            while self._items and (not pieces or size + len(self._items[0][0]) <= limit):
                data, was_pushed = self._items.popleft()
                pieces.append(data)
                size += len(data)
                pushed += len(data) * was_pushed
            return b"".join(pieces), pushed

    def mark_sent(self, size: int, pushed: int) -> None:
        """Count data that `get` returned as sent. Both arguments are in bytes."""
        with self._changed:
            self._unsent -= size
            self._pushed -= pushed
            self._changed.notify_all()

    @property
    def unsent(self) -> int:
        """Bytes that are queued or being sent."""
        return self._unsent

    def wait_until_below(self, size: int) -> bool:
        """Wait until at most `size` bytes are unsent. Returns False if the queue was discarded."""
        with self._changed:
            self._changed.wait_for(lambda: self._discarded or self._unsent <= size)
            return not self._discarded

    def close(self) -> None:
        """Accept no more data. Queued data is still sent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def discard(self) -> None:
        """Accept no more data, and drop what is unsent."""
        with self._changed:
            self._closed = self._discarded = True
            self._items.clear()
            self._unsent = self._pushed = 0
            self._changed.notify_all()


class BlockingConnectionWithWriter(BlockingConnection):
    """A connection with a second thread that sends, while the first one waits in recv()."""

    def __init__(
        self,
        connection: socket.socket,
        driver: ConversationDriver,
        limits: Limits,
        watchdog: Watchdog,
        send_queue: SendQueue,
    ) -> None:
        self._send_queue = send_queue
        self._writer = threading.Thread(target=self._run_writer, daemon=True, name="bothends-writer")
        super().__init__(connection, driver, limits, watchdog)
        send_queue.on_overflow = lambda: watchdog.abort(self, CloseReason.STALLED)
        if send_queue.overflowed:
            send_queue.on_overflow()

    def serve(self) -> None:
        """See BlockingConnection. The writer thread sends everything."""
        try:
            self._writer.start()
        except RuntimeError as error:  # pthread_create(3), EAGAIN: a limit on threads or memory
            self._send_queue.discard()
            self.driver.fail(error)
            return
        super().serve()

    def write(self, data: bytes) -> None:
        """Queue data for the writer thread. Blocks while more than `limits.unsent` bytes are unsent."""
        self._send_queue.reply(data)
        # A pull producer is called only when everything has been sent.
        high, low = (0, 0) if self.driver.wants_pull else (self.core.high_water, self.core.low_water)
        if self._send_queue.unsent > high and not self._send_queue.wait_until_below(low):
            raise ConversationEnded(self.abort_cause or CloseReason.RESET)

    @property
    def unsent(self) -> int:
        return self._send_queue.unsent

    def flush(self) -> None:
        """See BlockingConnection. The writer thread exits when it has sent the queued data."""
        self._send_queue.close()
        if self._writer.is_alive():
            self._writer.join()
        if self.abort_cause is not None:
            raise ConversationEnded(self.abort_cause)

    def stop_writer(self) -> None:
        self._send_queue.discard()
        if self._writer.is_alive():
            self.watchdog.abort(self, CloseReason.ABORTED)
            self._writer.join()

    def _run_writer(self) -> None:
        # Small pieces are sent together, except where each is a message.
        limit = 0 if self.driver.peer.message_oriented else MAX_SEND_SIZE
        try:
            while True:
                data, pushed = self._send_queue.get(limit)
                if not data:
                    return
                self.send(data)
                self._send_queue.mark_sent(len(data), pushed)
        except ConversationEnded as ended:
            self.watchdog.abort(self, ended.cause)
            self._send_queue.discard()


def _no_op() -> None:
    pass
