"""Engine `threads`: a thread for each connection.

    main thread:    poll(listeners) -> accept() -> start a thread -> poll(listeners) -> ...
    each thread:    recv() -> send() -> recv() -> ... -> close()

Each conversation is written as if it were the only one, and one that waits holds up nobody. What that
costs: a stack for each peer (8 MB of address space, a few dozen KB of memory), a switch between
threads for each message, and, in CPython, that only one of them computes at a time.

A service that posts to its peers gets two threads for each connection. Who posts must never wait for
a peer that doesn't read, so what is posted goes into an outbox, which a writer empties at that peer's
pace; and as such a service is made for its peers to meet, its conversations are called one at a time.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import socket
import threading
from collections.abc import Callable
from typing import Any, ClassVar, Final

from bothends.engines.acceptor import AcceptedConnection, Acceptor, WakeupPipe
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
from bothends.events import CloseReason, ConnectionRejected, RejectReason
from bothends.services.base import Peer, Push
from bothends.sockets import Listener

# After everyone has been cut off, how long to wait for the threads to notice. Who is still there
# computes in a service, which can't be interrupted: threads are daemons, and left behind.
ABORT_GRACE: Final = 1.0


class ThreadsEngine(Engine):
    """Gives each connection a thread, which blocks in recv() and send().

    A thread that is stuck in a service when the time to drain is over is left behind: `run` returns,
    the peer sees the end of its connection, the thread ends with the process.
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
        """Serve until told to stop."""
        context = self.context
        reception = AdmissionControl(context)
        with (
            contextlib.closing(WakeupPipe()) as bell,
            Watchdog(context.stop, context.limits) as warden,
            Acceptor(context, reception) as door,
        ):
            # Only this thread touches the reception: the others ring when they leave.
            gone: collections.deque[tuple[Peer, threading.Thread]] = collections.deque()

            def leave() -> None:
                for _ in range(bell.consume()):
                    peer, thread = gone.popleft()
                    thread.join()  # ringing was the last that it did
                    reception.release(peer)

            def over(peer: Peer) -> None:
                gone.append((peer, threading.current_thread()))
                bell.wake()

            door.poll_loop.add(bell.fileno(), leave)
            talk = (_PushConnectionThread if context.service.pushes else _ConnectionThread)(
                context, warden, over
            )
            for newcomer in door.accepted():
                thread = threading.Thread(target=talk, args=(newcomer,), daemon=True)
                thread.name = f"bothends-connection-{newcomer.peer.connection}"
                try:
                    thread.start()
                except RuntimeError:  # pthread_create(3): EAGAIN, a limit on threads or memory
                    newcomer.connection.close()
                    if context.observe is not None:
                        reason = "no thread could be started"
                        context.observe(
                            ConnectionRejected(newcomer.peer.address, reason, RejectReason.THREAD)
                        )
                    reception.release(newcomer.peer)
                    reception.pause(errno.EAGAIN)
                else:
                    reception.resume()
            door.run_until(lambda: reception.open_count == 0, ABORT_GRACE)
            door.poll_loop.remove(bell.fileno())


class _ConnectionThread:
    """What the thread of one connection does."""

    def __init__(
        self, context: EngineContext, watchdog: Watchdog, on_closed: Callable[[Peer], object]
    ) -> None:
        self.context = context
        self.watchdog = watchdog
        self._on_closed = on_closed

    def __call__(self, accepted: AcceptedConnection) -> None:
        try:
            self.serve(*accepted)
        finally:
            accepted.connection.close()
            self._on_closed(accepted.peer)

    def serve(self, connection: socket.socket, peer: Peer, listener: Listener) -> None:
        """The whole conversation."""
        run_conversation(
            connection, ConversationDriver(self.context, listener, peer), self.context.limits, self.watchdog
        )


class _PushConnectionThread(_ConnectionThread):
    """The same where what is posted must reach the peer while its thread waits in recv()."""

    def __init__(
        self, context: EngineContext, watchdog: Watchdog, on_closed: Callable[[Peer], object]
    ) -> None:
        super().__init__(context, watchdog, on_closed)
        self._lock = threading.RLock()

    def serve(self, connection: socket.socket, peer: Peer, listener: Listener) -> None:
        """The whole conversation."""
        outbox = SendQueue(self.context.limits)
        exchange = SerializedDriver(self._lock, self.context, listener, peer, outbox.push)
        BlockingConnectionWithWriter(connection, exchange, self.context.limits, self.watchdog, outbox).run()


class SerializedDriver(ConversationDriver):
    """An exchange of a service whose conversations meet: they are called one at a time.

    A service knows nothing of threads. One that posts keeps a list of who is there, and changes it in
    one conversation while another one goes through it.
    """

    __slots__ = ("_lock",)

    def __init__(self, lock: Any, context: EngineContext, listener: Listener, peer: Peer, push: Push) -> None:
        self._lock = lock
        with lock:
            super().__init__(context, listener, peer, push)

    def start(self) -> bytes:
        with self._lock:
            return super().start()

    def receive(self, data: bytes) -> bytes:
        with self._lock:
            return super().receive(data)

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
    """What is to be sent to one peer: put in by any thread, taken out by one."""

    def __init__(self, limits: Limits) -> None:
        self.overflowed = False
        self.on_overflow: Callable[[], object] = _no_op
        self._push_limit = limits.posted
        self._changed = threading.Condition()
        self._items: collections.deque[tuple[bytes, bool]] = collections.deque()
        self._closed = False  # takes nothing more
        self._discarded = False  # and gives nothing more
        self._unsent = 0  # what the writer is just sending included
        self._pushed = 0  # how much of that nobody asked for

    def push(self, data: bytes) -> None:
        """Queue what the peer has not asked for. Never blocks: who leaves more than `limits.posted`
        bytes of it unread is given up."""
        if self._put(data, pushed=True) > self._push_limit and not self.overflowed:
            self.overflowed = True
            self.on_overflow()

    def reply(self, data: bytes) -> None:
        """Queue what the peer has asked for."""
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
        """Wait for something to send, and take it: several pieces as one, if together they have no
        more than `most` bytes. Also how many of them were posted. b"" when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            taken: list[bytes] = []
            size = posted = 0
            while self._items and (not taken or size + len(self._items[0][0]) <= limit):
                data, was_posted = self._items.popleft()
                taken.append(data)
                size += len(data)
                posted += len(data) * was_posted
            return b"".join(taken), posted

    def mark_sent(self, size: int, pushed: int) -> None:
        """What was taken has been sent."""
        with self._changed:
            self._unsent -= size
            self._pushed -= pushed
            self._changed.notify_all()

    @property
    def unsent(self) -> int:
        """How many bytes wait, or are on their way."""
        return self._unsent

    def wait_until_below(self, size: int) -> bool:
        """Wait until no more than `size` bytes are unsent; False if that will never be."""
        with self._changed:
            self._changed.wait_for(lambda: self._discarded or self._unsent <= size)
            return not self._discarded

    def close(self) -> None:
        """Take nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def discard(self) -> None:
        """Take nothing more, and forget what is unsent."""
        with self._changed:
            self._closed = self._discarded = True
            self._items.clear()
            self._unsent = self._pushed = 0
            self._changed.notify_all()


class BlockingConnectionWithWriter(BlockingConnection):
    """A conversation whose words are sent by a second thread, while the first one waits for the peer's."""

    def __init__(
        self,
        connection: socket.socket,
        driver: ConversationDriver,
        limits: Limits,
        watchdog: Watchdog,
        send_queue: SendQueue,
    ) -> None:
        super().__init__(connection, driver, limits, watchdog)
        self._send_queue = send_queue
        self._writer = threading.Thread(target=self._run_writer, daemon=True, name="bothends-writer")
        self.watched.has_unsent = lambda: send_queue.unsent > 0
        send_queue.on_overflow = lambda: watchdog.abort(self.watched, CloseReason.STALLED)
        if send_queue.overflowed:
            send_queue.on_overflow()

    def serve(self) -> None:
        """See Talk. The writer sends from the first word to the last."""
        try:
            self._writer.start()
        except RuntimeError as error:  # no thread to be had
            self._send_queue.discard()
            self.driver.fail(error)
            return
        super().serve()

    def write(self, data: bytes) -> None:
        """Leave it to the writer; come back when so much is sent that there is room for more."""
        self._send_queue.reply(data)
        # What pulls is asked for more only when everything has been sent.
        most = 0 if self.driver.wants_pull else self.limits.unsent
        if not self._send_queue.wait_until_below(most):
            raise ConversationEnded(self.watched.abort_cause or CloseReason.RESET)

    def close_gracefully(self) -> None:
        """See Talk. First the writer sends what is left."""
        self._send_queue.close()
        if self._writer.is_alive():
            self._writer.join()
        if self.watched.abort_cause is not None:
            raise ConversationEnded(self.watched.abort_cause)
        super().close_gracefully()

    def stop_writer(self) -> None:
        """See Talk."""
        self._send_queue.discard()
        if self._writer.is_alive():
            self.watchdog.abort(self.watched, CloseReason.ABORTED)
            self._writer.join()

    def _run_writer(self) -> None:
        # Small pieces go out as one, but a message is a message.
        most = 0 if self.driver.peer.message_oriented else MAX_SEND_SIZE
        try:
            while True:
                data, posted = self._send_queue.get(most)
                if not data:
                    return
                self.send(data)
                self._send_queue.mark_sent(len(data), posted)
        except ConversationEnded as over:
            self.watchdog.abort(self.watched, over.cause)
            self._send_queue.discard()


def _no_op() -> None:
    """What is done where nothing is to be done."""
