"""Engine `prefork`: a fixed number of processes, each of which serves one connection after another.

    parent:         fork() ... fork() -> poll(children)
    each child:     poll(listeners) -> accept() -> recv() -> send() -> ... -> close() -> poll(listeners)

All children wait for the same sockets, and any idle child accepts the next connection. No client waits for
fork(), and a crash ends one conversation only. The server serves as many peers at once as it has children.
The next ones wait in the accept queue, and an idle peer occupies a process.

A new connection wakes every child that waits in poll(), and accept() fails with EAGAIN in all but one. This
thundering herd costs little with tens of processes. The kernel's solution is EPOLLEXCLUSIVE, which needs
epoll; this engine uses the classic calls.
"""

from __future__ import annotations

import os
from typing import ClassVar, Final

from bothends.engines.base import Engine, EngineContext
from bothends.engines.iterative import IterativeEngine
from bothends.engines.processes import WorkerPool
from bothends.engines.shutdown import ShutdownFlags
from bothends.services.base import Service

# A process that waits for its peer uses no CPU, so more processes than CPUs are useful. Each takes some 10 MB
# of memory, so not hundreds.
DEFAULT_SIZE: Final = max(2, os.cpu_count() or 1) * 2


class PreforkEngine(Engine):
    """A fixed number of processes, each serving one connection after another.

    Args:
        context: the engine's context.
        size: the number of processes.
    """

    name = "prefork"
    summary = "a fixed number of processes, each serving one connection after another"
    why_not: ClassVar = {
        "supports_push": "its connections are in different processes, which share nothing, so a push cannot "
        "reach them",
        "rejects_when_full": "when all of its processes are busy, none accepts connections",
        "accepts_inherited": "all of its processes would use the same connection",
    }
    rejects_when_full = False
    accepts_inherited = False

    def __init__(self, context: EngineContext, size: int = DEFAULT_SIZE) -> None:
        super().__init__(context)
        self.size = size
        self._workers: WorkerPool | None = None

    def run(self) -> None:
        """Serve until asked to stop."""
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
        """See Engine.reload. Each child has a copy of the service, and reloads it itself on SIGHUP."""
        super().reload(service)
        if self._workers is not None:
            self._workers.reload_all()

    def _worker_main(self, _stop: ShutdownFlags) -> None:
        self._workers = None  # the pool belongs to the parent
        IterativeEngine(self.context).run()

    def _close_listeners(self) -> None:
        # The kernel completes handshakes as long as any process has the listener open.
        for listener in self.context.listeners:
            listener.close()
