"""Engine `pool`: a fixed number of threads, which take connections from a queue.

    main thread:    poll(listeners) -> accept() -> put into the queue -> poll(listeners) -> ...
    each thread:    take from the queue -> recv() -> send() -> ... -> close() -> take from the queue

No client waits for a thread to be created, and a flood of clients creates no further threads: the resources
that the server can use are known before it starts. It serves as many peers at once as it has threads. An idle
peer occupies a thread, so the pool suits short conversations, or needs as many threads as there are peers.

The threads answer datagrams as well. A readable socket is handed to a thread and not watched until the thread
returns it. So each socket occupies at most one thread, its datagrams are answered in order, and a slow answer
delays later datagrams of that socket, but neither connections nor other sockets.
"""

from __future__ import annotations

import contextlib
import errno
import queue
import sys
import threading
from collections.abc import Callable
from typing import ClassVar, Final

from bothends.engines.acceptor import AcceptedConnection, Acceptor
from bothends.engines.admission import AdmissionControl
from bothends.engines.base import Engine, EngineContext
from bothends.engines.blocking import Watchdog, run_conversation
from bothends.engines.datagrams import DatagramServer
from bothends.engines.poll_loop import ThreadCallbacks
from bothends.engines.threads import ABORT_GRACE
from bothends.errors import SystemCallFailed

# Enough for a classroom, or for some slow peers beside fast ones. In CPython more threads do not compute
# faster; they only let more peers be idle at once.
DEFAULT_SIZE: Final = 32


class PoolEngine(Engine):
    """A fixed number of threads. Each serves one connection at a time, and blocks in recv() and send().

    A thread that is still inside a service when the drain timeout expires is abandoned, as in `threads`.

    Args:
        context: the engine's context.
        size: the number of threads, and so of connections served at once.
    """

    name = "pool"
    summary = "a fixed number of threads, which take connections from a queue"
    why_not: ClassVar = {
        "supports_push": "pushing to a peer while a thread waits for its input takes a second thread for "
        "each connection, and the pool has a fixed number: use threads",
    }

    def __init__(self, context: EngineContext, size: int = DEFAULT_SIZE) -> None:
        super().__init__(context)
        self.size = size
        self._tasks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()

    def run(self) -> None:
        """Serve until asked to stop.

        Raises:
            SystemCallFailed: not even one thread could be started.
        """
        context = self.context
        with Watchdog(context.stop, context.limits) as self._watchdog:
            threads = self._start_threads()
            self._admission = AdmissionControl(context, max_connections=len(threads))
            with (
                Acceptor(
                    context, self._admission, serve_datagrams=self._dispatch_datagrams
                ) as self._acceptor,
                contextlib.closing(ThreadCallbacks(self._acceptor.poll_loop)) as self._main_thread,
            ):
                for accepted in self._acceptor.accepted():
                    self._tasks.put(lambda accepted=accepted: self._serve_connection(accepted))  # type: ignore[misc]
                all_closed = self._acceptor.poll_loop.run_until(
                    lambda: self._admission.open_count == 0, drain=context.limits.drain, grace=ABORT_GRACE
                )
            for _ in threads:
                self._tasks.put(None)
            for thread in threads:
                if all_closed:
                    thread.join()

    def _start_threads(self) -> list[threading.Thread]:
        threads: list[threading.Thread] = []
        for number in range(self.size):
            thread = threading.Thread(target=self._thread_main, name=f"bothends-pool-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # pthread_create(3), EAGAIN: a limit on threads or memory
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
                pass  # a service that exits its thread must not shrink the pool
            except BaseException:
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))

    def _serve_connection(self, accepted: AcceptedConnection) -> None:
        try:
            run_conversation(self.context, accepted, self._watchdog)
        finally:
            accepted.connection.close()
            self._main_thread.post(lambda: self._admission.release(accepted.peer))

    def _serve_datagrams(self, server: DatagramServer) -> None:
        try:
            server.serve()
        finally:
            self._main_thread.post(lambda: self._acceptor.resume(server))

    # In the main thread ---------------------------------------------------------------------------------

    def _dispatch_datagrams(self, server: DatagramServer) -> None:
        self._acceptor.suspend(server)
        self._tasks.put(lambda: self._serve_datagrams(server))
