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

from bothends.engines.acceptor import AcceptedConnection, Acceptor, WakeupPipe
from bothends.engines.admission import AdmissionControl
from bothends.engines.base import Engine, EngineContext
from bothends.engines.blocking import Watchdog, run_conversation
from bothends.engines.datagrams import DatagramServer
from bothends.engines.driver import ConversationDriver
from bothends.engines.threads import ABORT_GRACE
from bothends.errors import SystemCallFailed

# Enough for a classroom or a handful of slow peers beside the fast ones; in CPython more threads than
# that don't compute faster, they only wait for more peers.
DEFAULT_SIZE: Final = 32


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

    def __init__(self, context: EngineContext, size: int = DEFAULT_SIZE) -> None:
        super().__init__(context)
        self.size = size

    def run(self) -> None:
        """Serve until told to stop.

        Raises:
            SystemRefused: not a single thread can be started.
        """
        _Pool(self.context, self.size).run()


class _Pool:
    def __init__(self, context: EngineContext, size: int) -> None:
        self._job = context
        self._size = size
        self._tasks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        # What the threads have done, in the order in which they rang.
        self._completions: collections.deque[Callable[[], object]] = collections.deque()

    def run(self) -> None:
        context = self._job
        with (
            contextlib.closing(WakeupPipe()) as self._wakeup,
            Watchdog(context.stop, context.limits) as self._watchdog,
        ):
            threads = self._start_threads()
            self._admission = AdmissionControl(context, max_connections=len(threads))
            with Acceptor(
                context, self._admission, serve_datagrams=self._dispatch_datagrams
            ) as self._acceptor:
                self._acceptor.poll_loop.add(self._wakeup.fileno(), self._run_completions)
                for newcomer in self._acceptor.accepted():
                    self._tasks.put(lambda newcomer=newcomer: self._serve_connection(newcomer))  # type: ignore[misc]
                over = self._acceptor.run_until(lambda: self._admission.open_count == 0, ABORT_GRACE)
                self._acceptor.poll_loop.remove(self._wakeup.fileno())
            for _ in threads:
                self._tasks.put(None)
            for thread in threads:
                if over:
                    thread.join()

    def _start_threads(self) -> list[threading.Thread]:
        threads: list[threading.Thread] = []
        for number in range(self._size):
            thread = threading.Thread(target=self._thread_main, name=f"bothends-pool-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # pthread_create(3): a limit on threads, or on memory
                if not threads:
                    raise SystemCallFailed("start", "a thread", errno.EAGAIN) from error
                break
            threads.append(thread)
        return threads

    # In a thread of the pool --------------------------------------------------------------------------

    def _thread_main(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except SystemExit:
                pass  # a service that ends its thread must not shrink the pool
            except BaseException:
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))

    def _serve_connection(self, accepted: AcceptedConnection) -> None:
        connection, peer, listener = accepted
        try:
            run_conversation(
                connection, ConversationDriver(self._job, listener, peer), self._job.limits, self._watchdog
            )
        finally:
            connection.close()
            self._complete(lambda: self._admission.release(peer))

    def _serve_datagrams(self, server: DatagramServer) -> None:
        try:
            server.serve()
        finally:
            self._complete(lambda: self._acceptor.resume(server))

    def _complete(self, callback: Callable[[], object]) -> None:
        self._completions.append(callback)
        self._wakeup.wake()

    # In the main thread ---------------------------------------------------------------------------------

    def _dispatch_datagrams(self, server: DatagramServer) -> None:
        self._acceptor.suspend(server)
        self._tasks.put(lambda: self._serve_datagrams(server))

    def _run_completions(self) -> None:
        for _ in range(self._wakeup.consume()):
            self._completions.popleft()()
