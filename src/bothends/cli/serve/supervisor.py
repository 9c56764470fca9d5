"""Run several servers, each in a child process; the parent process holds their listeners.

    this process:   bind everything ──> fork() ... fork() ──> poll(children) ──> drain ──> exit
    each child:                          run the server ────────────────────────> drain ──> exit

1. All endpoints are bound before any server runs, so that an error starts none of them.
2. A child that exits with an error is replaced. New connections wait in the accept queue meanwhile, because
   the parent keeps the listeners open; none is refused.
3. Stop signals go to this process. ^C at a terminal reaches the children too, but they ignore the signals
   that their parent handles (`engines/processes.py`, fact 3).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Final

from bothends.cli.output_files import output_files
from bothends.cli.serve import banner
from bothends.cli.serve.runtime import ServerRuntime
from bothends.configuration import ServeOptions
from bothends.engines.poll_loop import PollLoop
from bothends.engines.processes import KILL_GRACE, Child, ChildSet, RestartBackoff, fork
from bothends.engines.shutdown import ShutdownFlags
from bothends.events import AcceptPaused, ChildExited
from bothends.osutil.signals import handle_signals
from bothends.server import sd_notify_ready

# Unset in a child process, because it could send state to the service manager in place of its parent.
_SD_NOTIFY_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Supervisor:
    """Run bound servers, each in a child process, until a signal stops them."""

    def __init__(self, runtimes: Sequence[ServerRuntime]) -> None:
        self._runtimes = runtimes
        self._stop = ShutdownFlags()
        self._poll_loop = PollLoop(self._stop)
        self._children = ChildSet(self._poll_loop, None)
        self._backoffs = {id(each): RestartBackoff() for each in runtimes}
        self._restarts: list[tuple[float, ServerRuntime]] = []

    def run(self, on_ready: Callable[[], object] | None = None) -> None:
        """Serve until a signal arrives, or until all children have exited normally.

        The first SIGINT or SIGTERM drains, the second aborts; SIGHUP reloads the services. `on_ready` is
        called once all children have been forked.
        """
        poll_loop = self._poll_loop
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            stack.enter_context(handle_signals(self))
            for runtime in self._runtimes:
                self._start(runtime)
                stack.enter_context(runtime.offer_listeners())
            if on_ready is not None:
                on_ready()
            stack.enter_context(sd_notify_ready())
            while poll_loop.draining_since is None and (self._children or self._restarts):
                self._restart_due()
                poll_loop.run_once(
                    min(at for at, _ in self._restarts) - time.monotonic() if self._restarts else None
                )
            self._drain_all()

    @property
    def is_draining(self) -> bool:
        """Whether `drain` has been called."""
        return self._stop.draining.is_set()

    def drain(self) -> None:
        """Stop accepting, and let open connections finish. Safe in a signal handler."""
        self._stop.draining.set()

    def abort(self) -> None:
        """Close all connections at once. Safe in a signal handler."""
        self._stop.aborting.set()

    def reload(self) -> None:
        """Make every server reload its service. Called in a separate thread."""
        self._children.signal(signal.SIGHUP)

    def _start(self, runtime: ServerRuntime) -> None:
        def run_in_child() -> None:
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
            child = fork("server", run_in_child)
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
            # It is finished, or its listeners were taken over: close them, or clients would wait in a queue
            # from which no process accepts.
            runtime.close_listeners()

    def _schedule_restart(self, runtime: ServerRuntime, child: Child | None) -> None:
        if not runtime.server.is_draining:
            self._restarts.append((time.monotonic() + self._backoffs[id(runtime)].next_delay(child), runtime))

    def _restart_due(self) -> None:
        now = time.monotonic()
        due = [runtime for at, runtime in self._restarts if at <= now]
        self._restarts = [(at, runtime) for at, runtime in self._restarts if at > now]
        for runtime in due:
            self._start(runtime)

    def _drain_all(self) -> None:
        self._restarts.clear()
        for runtime in self._runtimes:
            runtime.server.drain()  # the children see it, too, and close their copies of the listeners
            runtime.server.close_listeners()
        drain_limit = max(runtime.options.limits.drain for runtime in self._runtimes)
        # A child needs one grace period for its own workers; the second one is for the child itself.
        deadline = time.monotonic() + drain_limit + 2 * KILL_GRACE
        while self._children and (remaining := deadline - time.monotonic()) > 0:
            self._poll_loop.run_once(remaining)
            if self._poll_loop.aborting_since is not None:
                for runtime in self._runtimes:
                    runtime.server.abort()
                deadline = min(deadline, self._poll_loop.aborting_since + 2 * KILL_GRACE)
        self._children.signal(signal.SIGKILL)
        self._children.wait(None)

    def _close(self) -> None:
        for runtime in self._runtimes:
            runtime.close_listeners()
        self._stop.close()


def run_all(servers: Sequence[ServeOptions]) -> None:
    """Bind several servers and run them until a signal stops them.

    Raises:
        BothendsError: one of them cannot be bound; then none runs.
    """
    with output_files() as files:
        with contextlib.ExitStack() as stack:
            runtimes = []
            for options in servers:
                runtime = ServerRuntime(options, files, one_of_several=True)
                stack.callback(runtime.close)
                runtimes.append(runtime)
            stack.pop_all()

        def show() -> None:
            for each in runtimes:
                banner.show(each)

        Supervisor(runtimes).run(show)
