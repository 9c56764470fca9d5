"""Engine `pool`: a fixed number of threads, which take connections from a queue.

    main thread:    poll(listeners) -> accept() -> put into the queue -> poll(listeners) -> ...
    each thread:    take from the queue -> recv() -> send() -> ... -> close() -> take from the queue

No thread is made while a client waits, and a flood of clients can't make more of them than there are:
what the server uses at most is known before it starts. As many peers are served at once as there are
threads. An idle peer occupies a thread, so with long conversations and many peers, the pool is the
wrong choice, or its size is.

Datagrams are answered by the threads too. A socket that has some is handed to a thread, and nobody looks
at it until the thread gives it back: so one socket keeps one thread busy at most, its datagrams are
answered in order, and a slow answer delays those behind it, but neither connections nor other sockets.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import queue
import sys
import threading
from collections.abc import Callable
from typing import ClassVar, Final

from bothends.engines.acceptor import Bell, Door, Newcomer
from bothends.engines.admission import Reception
from bothends.engines.base import Engine, Job
from bothends.engines.blocking import Warden, converse
from bothends.engines.datagrams import DatagramDesk
from bothends.engines.driver import Exchange
from bothends.engines.threads import ABORT_GRACE
from bothends.errors import SystemRefused

# Enough for a classroom or a handful of slow peers beside the fast ones; in CPython more threads than
# that don't compute faster, they only wait for more peers.
SIZE: Final = 32


class PoolEngine(Engine):
    """Keeps threads that each take a connection and block in recv() and send() until it is over.

    A thread that is stuck in a service when the time to drain is over is left behind, as in `threads`.

    Args:
        job: what to serve.
        size: how many threads, and so connections at once.
    """

    name = "pool"
    summary = "a fixed number of threads, which take connections from a queue"
    why_not: ClassVar = {
        "posts": "delivering what is posted while a thread waits for the peer takes a second thread for "
        "each connection, and the pool has a fixed number: use threads",
    }

    def __init__(self, job: Job, size: int = SIZE) -> None:
        super().__init__(job)
        self.size = size

    def run(self) -> None:
        """Serve until told to stop.

        Raises:
            SystemRefused: not a single thread can be started.
        """
        _Pool(self.job, self.size).run()


class _Pool:
    def __init__(self, job: Job, size: int) -> None:
        self._job = job
        self._size = size
        self._tasks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        # What the threads have done, in the order in which they rang.
        self._done: collections.deque[Callable[[], object]] = collections.deque()

    def run(self) -> None:
        job = self._job
        with contextlib.closing(Bell()) as self._bell, Warden(job.stop, job.limits) as self._warden:
            threads = self._start()
            self._reception = Reception(job, most=len(threads))
            with Door(job, self._reception, serve_desk=self._hand_over) as self._door:
                self._door.watch.add(self._bell.fileno(), self._answer)
                for newcomer in self._door.newcomers():
                    self._tasks.put(lambda newcomer=newcomer: self._talk(newcomer))  # type: ignore[misc]
                over = self._door.wait_until(lambda: self._reception.open == 0, ABORT_GRACE)
                self._door.watch.remove(self._bell.fileno())
            for _ in threads:
                self._tasks.put(None)
            for thread in threads:
                if over:
                    thread.join()

    def _start(self) -> list[threading.Thread]:
        threads: list[threading.Thread] = []
        for number in range(self._size):
            thread = threading.Thread(target=self._work, name=f"bothends-pool-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # pthread_create(3): a limit on threads, or on memory
                if not threads:
                    raise SystemRefused("start", "a thread", errno.EAGAIN) from error
                break
            threads.append(thread)
        return threads

    # In a thread of the pool --------------------------------------------------------------------------

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except SystemExit:
                pass  # a service that ends its thread must not shrink the pool
            except BaseException:
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))

    def _talk(self, newcomer: Newcomer) -> None:
        connection, peer, listener = newcomer
        try:
            converse(connection, Exchange(self._job, listener, peer), self._job.limits, self._warden)
        finally:
            connection.close()
            self._tell(lambda: self._reception.left(peer))

    def _serve(self, desk: DatagramDesk) -> None:
        try:
            desk.serve()
        finally:
            self._tell(lambda: self._door.take_back(desk))

    def _tell(self, done: Callable[[], object]) -> None:
        self._done.append(done)
        self._bell.ring()

    # In the main thread ---------------------------------------------------------------------------------

    def _hand_over(self, desk: DatagramDesk) -> None:
        self._door.lend(desk)
        self._tasks.put(lambda: self._serve(desk))

    def _answer(self) -> None:
        for _ in range(self._bell.heard()):
            self._done.popleft()()
