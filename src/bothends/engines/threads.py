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

from bothends.engines.acceptor import Bell, Door, Newcomer
from bothends.engines.admission import Reception
from bothends.engines.base import Engine, Job, Limits
from bothends.engines.blocking import PIECE, Over, Talk, Warden, converse
from bothends.engines.driver import Exchange
from bothends.events import Cause, Refused, Why
from bothends.services.base import Peer, Post
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
    posts = True
    why_not: ClassVar = {
        "datagrams": "a datagram has no connection to hand to a thread: use pool, or an engine that "
        "waits for readiness",
    }

    def run(self) -> None:
        """Serve until told to stop."""
        job = self.job
        reception = Reception(job)
        with (
            contextlib.closing(Bell()) as bell,
            Warden(job.stop, job.limits) as warden,
            Door(job, reception) as door,
        ):
            # Only this thread touches the reception: the others ring when they leave.
            gone: collections.deque[tuple[Peer, threading.Thread]] = collections.deque()

            def leave() -> None:
                for _ in range(bell.heard()):
                    peer, thread = gone.popleft()
                    thread.join()  # ringing was the last that it did
                    reception.left(peer)

            def over(peer: Peer) -> None:
                gone.append((peer, threading.current_thread()))
                bell.ring()

            door.watch.add(bell.fileno(), leave)
            talk = (_Posting if job.service.posts else _Plain)(job, warden, over)
            for newcomer in door.newcomers():
                thread = threading.Thread(target=talk, args=(newcomer,), daemon=True)
                thread.name = f"bothends-connection-{newcomer.peer.connection}"
                try:
                    thread.start()
                except RuntimeError:  # pthread_create(3): EAGAIN, a limit on threads or memory
                    newcomer.connection.close()
                    if job.observe is not None:
                        reason = "no thread could be started"
                        job.observe(Refused(newcomer.peer.address, reason, Why.THREAD))
                    reception.left(newcomer.peer)
                    reception.strain(errno.EAGAIN)
                else:
                    reception.relieve()
            door.wait_until(lambda: reception.open == 0, ABORT_GRACE)
            door.watch.remove(bell.fileno())


class _Plain:
    """What the thread of one connection does."""

    def __init__(self, job: Job, warden: Warden, over: Callable[[Peer], object]) -> None:
        self.job = job
        self.warden = warden
        self._over = over

    def __call__(self, newcomer: Newcomer) -> None:
        try:
            self.talk(*newcomer)
        finally:
            newcomer.connection.close()
            self._over(newcomer.peer)

    def talk(self, connection: socket.socket, peer: Peer, listener: Listener) -> None:
        """The whole conversation."""
        converse(connection, Exchange(self.job, listener, peer), self.job.limits, self.warden)


class _Posting(_Plain):
    """The same where what is posted must reach the peer while its thread waits in recv()."""

    def __init__(self, job: Job, warden: Warden, over: Callable[[Peer], object]) -> None:
        super().__init__(job, warden, over)
        self._turn = threading.RLock()

    def talk(self, connection: socket.socket, peer: Peer, listener: Listener) -> None:
        """The whole conversation."""
        outbox = Outbox(self.job.limits)
        exchange = TakingTurns(self._turn, self.job, listener, peer, outbox.post)
        TalkWithOutbox(connection, exchange, self.job.limits, self.warden, outbox).run()


class TakingTurns(Exchange):
    """An exchange of a service whose conversations meet: they are called one at a time.

    A service knows nothing of threads. One that posts keeps a list of who is there, and changes it in
    one conversation while another one goes through it.
    """

    __slots__ = ("_turn",)

    def __init__(self, turn: Any, job: Job, listener: Listener, peer: Peer, post: Post) -> None:
        self._turn = turn
        with turn:
            super().__init__(job, listener, peer, post)

    def start(self) -> bytes:
        with self._turn:
            return super().start()

    def receive(self, data: bytes) -> bytes:
        with self._turn:
            return super().receive(data)

    def finish(self, cause: Cause) -> bytes:
        with self._turn:
            return super().finish(cause)

    def more(self) -> bytes:
        with self._turn:
            return super().more()

    def close(self, cause: Cause | None = None) -> None:
        with self._turn:
            super().close(cause)


class Outbox:
    """What is to be sent to one peer: put in by any thread, taken out by one."""

    def __init__(self, limits: Limits) -> None:
        self.overflowed = False
        self.on_overflow: Callable[[], object] = _nothing
        self._most = limits.posted
        self._changed = threading.Condition()
        self._items: collections.deque[tuple[bytes, bool]] = collections.deque()
        self._closed = False  # takes nothing more
        self._dead = False  # and gives nothing more
        self._unsent = 0  # what the writer is just sending included
        self._posted = 0  # how much of that nobody asked for

    def post(self, data: bytes) -> None:
        """Queue what the peer has not asked for. Never blocks: who leaves more than `limits.posted`
        bytes of it unread is given up."""
        if self._put(data, posted=True) > self._most and not self.overflowed:
            self.overflowed = True
            self.on_overflow()

    def answer(self, data: bytes) -> None:
        """Queue what the peer has asked for."""
        self._put(data, posted=False)

    def _put(self, data: bytes, *, posted: bool) -> int:
        with self._changed:
            if data and not self._closed:
                self._items.append((data, posted))
                self._unsent += len(data)
                self._posted += len(data) * posted
                self._changed.notify_all()
            return self._posted

    def take(self, most: int) -> tuple[bytes, int]:
        """Wait for something to send, and take it: several pieces as one, if together they have no
        more than `most` bytes. Also how many of them were posted. b"" when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            taken: list[bytes] = []
            size = posted = 0
            while self._items and (not taken or size + len(self._items[0][0]) <= most):
                data, was_posted = self._items.popleft()
                taken.append(data)
                size += len(data)
                posted += len(data) * was_posted
            return b"".join(taken), posted

    def sent(self, size: int, posted: int) -> None:
        """What was taken has been sent."""
        with self._changed:
            self._unsent -= size
            self._posted -= posted
            self._changed.notify_all()

    @property
    def unsent(self) -> int:
        """How many bytes wait, or are on their way."""
        return self._unsent

    def wait_until_below(self, size: int) -> bool:
        """Wait until no more than `size` bytes are unsent; False if that will never be."""
        with self._changed:
            self._changed.wait_for(lambda: self._dead or self._unsent <= size)
            return not self._dead

    def close(self) -> None:
        """Take nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def kill(self) -> None:
        """Take nothing more, and forget what is unsent."""
        with self._changed:
            self._closed = self._dead = True
            self._items.clear()
            self._unsent = self._posted = 0
            self._changed.notify_all()


class TalkWithOutbox(Talk):
    """A conversation whose words are sent by a second thread, while the first one waits for the peer's."""

    def __init__(
        self,
        connection: socket.socket,
        exchange: Exchange,
        limits: Limits,
        warden: Warden,
        outbox: Outbox,
    ) -> None:
        super().__init__(connection, exchange, limits, warden)
        self._outbox = outbox
        self._writer = threading.Thread(target=self._write, daemon=True, name="bothends-writer")
        self.ward.owes = lambda: outbox.unsent > 0
        outbox.on_overflow = lambda: warden.cut(self.ward, Cause.STALLED)
        if outbox.overflowed:
            outbox.on_overflow()

    def talk(self) -> None:
        """See Talk. The writer sends from the first word to the last."""
        try:
            self._writer.start()
        except RuntimeError as error:  # no thread to be had
            self._outbox.kill()
            self.exchange.fail(error)
            return
        super().talk()

    def say(self, data: bytes) -> None:
        """Leave it to the writer; come back when so much is sent that there is room for more."""
        self._outbox.answer(data)
        # What pulls is asked for more only when everything has been sent.
        most = 0 if self.exchange.pulls else self.limits.unsent
        if not self._outbox.wait_until_below(most):
            raise Over(self.ward.verdict or Cause.RESET)

    def part(self) -> None:
        """See Talk. First the writer sends what is left."""
        self._outbox.close()
        if self._writer.is_alive():
            self._writer.join()
        if self.ward.verdict is not None:
            raise Over(self.ward.verdict)
        super().part()

    def fall_silent(self) -> None:
        """See Talk."""
        self._outbox.kill()
        if self._writer.is_alive():
            self.warden.cut(self.ward, Cause.ABORTED)
            self._writer.join()

    def _write(self) -> None:
        # Small pieces go out as one, but a message is a message.
        most = 0 if self.exchange.peer.boundaries else PIECE
        try:
            while True:
                data, posted = self._outbox.take(most)
                if not data:
                    return
                self.send(data)
                self._outbox.sent(len(data), posted)
        except Over as over:
            self.warden.cut(self.ward, over.cause)
            self._outbox.kill()


def _nothing() -> None:
    """What is done where nothing is to be done."""
