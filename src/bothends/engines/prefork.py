"""Engine `prefork`: a fixed number of processes, each of which serves one connection after another.

    parent:         fork() ... fork() -> poll(children)
    each child:     poll(listeners) -> accept() -> recv() -> send() -> ... -> close() -> poll(listeners)

All children wait at the same sockets, and whoever is free takes the next connection. No process is made
while a client waits, and one that crashes takes a single conversation with it. As many peers are
served at once as there are children; the next ones wait in the queue, an idle peer occupies a process.

A connection wakes every child that waits in poll(), and all but one of them find nothing (accept()
gives EAGAIN). This thundering herd costs little for tens of processes; epoll's EPOLLEXCLUSIVE is the
kernel's remedy, and no part of this engine, which is about the classic calls.
"""

from __future__ import annotations

import os
from typing import ClassVar, Final

from bothends.engines.base import Engine, EngineContext
from bothends.engines.iterative import IterativeEngine
from bothends.engines.processes import WorkerPool
from bothends.engines.shutdown import ShutdownFlags
from bothends.services.base import Service

# A process that waits for its peer uses no processor, so there are more of them than processors; each
# costs some 10 MB, so there aren't hundreds.
DEFAULT_SIZE: Final = max(2, os.cpu_count() or 1) * 2


class PreforkEngine(Engine):
    """Keeps processes that serve one connection after another.

    Args:
        job: what to serve.
        size: how many processes.
    """

    name = "prefork"
    summary = "a fixed number of processes, each serving one connection after another"
    why_not: ClassVar = {
        "posts": "its connections are in different processes, which share nothing: who posts does not "
        "reach them",
        "turns_away": "when all of its processes are busy, nobody is left to look at newcomers",
        "adopts": "all of its processes would talk on one connection",
    }
    rejects_when_full = False
    accepts_inherited = False

    def __init__(self, context: EngineContext, size: int = DEFAULT_SIZE) -> None:
        super().__init__(context)
        self.size = size
        self._workers: WorkerPool | None = None

    def run(self) -> None:
        """Serve until told to stop."""
        context = self.context
        self._workers = WorkerPool(
            self.size,
            self._worker_main,
            context.stop,
            context.observe,
            grace=context.limits.drain,
            on_drain=self._close_listeners,
        )
        self._workers.run()

    def reload(self, service: Service) -> None:
        """See Engine. The children have copies of what we know, and load the service themselves."""
        super().reload(service)
        if self._workers is not None:
            self._workers.reload_all()

    def _worker_main(self, _stop: ShutdownFlags) -> None:
        self._workers = None  # the parent's
        IterativeEngine(self.context).run()

    def _close_listeners(self) -> None:
        # The kernel welcomes clients for as long as any process has the listener open.
        for listener in self.context.listeners:
            listener.close()
