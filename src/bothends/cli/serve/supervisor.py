"""Several servers of one program: each in a process of its own, under one that keeps their listeners.

    this process:   bind everything ──> fork() ... fork() ──> poll(children) ──> drain ──> leave
    each child:                          run the server ────────────────────────> drain ──> leave

Everything is bound before anything is served, so that a mistake keeps all of them from beginning, and a
child that dies is replaced without a newcomer being refused: it waits in the queue meanwhile. What is
told to stop is this process. ^C at a terminal reaches the children too, but they ignore what their
parent handles (`engines/processes.py`, fact 3).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Final

from bothends.cli.serve import banner
from bothends.cli.serve.runtime import ServerRuntime
from bothends.configuration import ServeOptions
from bothends.engines.acceptor import PollLoop
from bothends.engines.processes import KILL_GRACE, Child, ChildSet, RestartBackoff, fork
from bothends.engines.shutdown import ShutdownFlags
from bothends.events import AcceptPaused, ChildExited
from bothends.osutil.signals import handle_signals
from bothends.server import sd_notify_ready

# What a child could tell the service manager in its parent's name.
_SD_NOTIFY_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Supervisor:
    """Runs servers that are bound, each in a child, until told to stop."""

    def __init__(self, runtimes: Sequence[ServerRuntime]) -> None:
        self._runtimes = runtimes
        self._stop = ShutdownFlags()
        self._poll_loop = PollLoop(self._stop)
        self._children = ChildSet(self._poll_loop, None)
        self._backoffs = {id(each): RestartBackoff() for each in runtimes}
        self._restarts: list[tuple[float, ServerRuntime]] = []

    def run(self, on_ready: Callable[[], object] | None = None) -> None:
        """Serve until told to stop, or until none of them has anything left to do.

        SIGINT and SIGTERM drain, then abort; SIGHUP makes each load its service anew.
        """
        watch = self._poll_loop
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            stack.enter_context(handle_signals(self))
            for serving in self._runtimes:
                self._start(serving)
                stack.enter_context(serving.offer_listeners())
            if on_ready is not None:
                on_ready()
            stack.enter_context(sd_notify_ready())
            while watch.draining_since is None and (self._children or self._restarts):
                self._restart_due()
                watch.run_once(
                    min(at for at, _ in self._restarts) - time.monotonic() if self._restarts else None
                )
            self._drain_all()

    @property
    def is_draining(self) -> bool:
        """Whether it has been told to stop."""
        return self._stop.draining.is_set()

    def drain(self) -> None:
        """Let all conversations end. Safe in a signal handler."""
        self._stop.draining.set()

    def abort(self) -> None:
        """Cut everything off. Safe in a signal handler."""
        self._stop.aborting.set()

    def reload(self) -> None:
        """Tell every server to load its service anew. Called in a thread of its own."""
        self._children.signal(signal.SIGHUP)

    def _start(self, runtime: ServerRuntime) -> None:
        def live() -> None:
            self._children.close_in_child()
            self._stop.detach_in_child()
            for other in self._runtimes:
                if other is not runtime:
                    other.discard_in_child()
            for name in _SD_NOTIFY_VARIABLES:
                os.environ.pop(name, None)
            runtime.adopt_in_child()
            runtime.run()

        try:
            child = fork("server", live)
        except OSError as error:
            runtime.observe(AcceptPaused(error.errno or 0, 0))
            self._schedule_restart(runtime, None)
            return
        self._children.add(child, lambda child: self._child_exited(runtime, child))

    def _child_exited(self, runtime: ServerRuntime, child: Child) -> None:
        if child.status:
            runtime.observe(ChildExited(child.pid, child.role, child.status))
            self._schedule_restart(runtime, child)
        else:
            runtime.close_listeners()  # it has nothing left to do, or was taken over: nobody may wait for it here

    def _schedule_restart(self, runtime: ServerRuntime, child: Child | None) -> None:
        if not runtime.server.is_draining:
            self._restarts.append((time.monotonic() + self._backoffs[id(runtime)].next_delay(child), runtime))

    def _restart_due(self) -> None:
        now = time.monotonic()
        due = [serving for at, serving in self._restarts if at <= now]
        self._restarts = [(at, serving) for at, serving in self._restarts if at > now]
        for serving in due:
            self._start(serving)

    def _drain_all(self) -> None:
        self._restarts.clear()
        for serving in self._runtimes:
            serving.server.drain()
            serving.server.close_listeners()  # the children have these too, and are told
        longest = max(serving.options.limits.drain for serving in self._runtimes)
        deadline = (
            time.monotonic() + longest + 2 * KILL_GRACE
        )  # theirs is a grace period for their own workers
        while self._children and (left := deadline - time.monotonic()) > 0:
            self._poll_loop.run_once(left)
            if self._poll_loop.aborting_since is not None:
                for serving in self._runtimes:
                    serving.server.abort()
                deadline = min(deadline, self._poll_loop.aborting_since + 2 * KILL_GRACE)
        self._children.signal(signal.SIGKILL)
        self._children.wait(None)

    def _close(self) -> None:
        for serving in self._runtimes:
            serving.close_listeners()
        self._stop.close()


def run_all(found: Sequence[ServeOptions]) -> None:
    """Serve all of them, until told to stop.

    Raises:
        BothendsError: one of them can't be bound; then nothing is served.
    """
    with contextlib.ExitStack() as stack:
        servings = []
        for options in found:
            serving = ServerRuntime(options, one_of_several=True)
            stack.callback(serving.close)
            servings.append(serving)
        stack.pop_all()

        def show() -> None:
            for each in servings:
                banner.show(each)

        Supervisor(servings).run(show)
