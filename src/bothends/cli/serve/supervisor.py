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
from bothends.cli.serve.runtime import Serving
from bothends.configuration import ServeOptions
from bothends.engines.acceptor import Watch
from bothends.engines.processes import GRACE, Child, Children, Pause, fork
from bothends.engines.shutdown import Stop
from bothends.events import Exited, Strained
from bothends.osutil.signals import heeding_signals
from bothends.server import announced

# What a child could tell the service manager in its parent's name.
_MANAGERS: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Supervisor:
    """Runs servers that are bound, each in a child, until told to stop."""

    def __init__(self, servings: Sequence[Serving]) -> None:
        self._servings = servings
        self._stop = Stop()
        self._watch = Watch(self._stop)
        self._children = Children(self._watch, None)
        self._pauses = {id(each): Pause() for each in servings}
        self._due: list[tuple[float, Serving]] = []

    def run(self, ready: Callable[[], object] | None = None) -> None:
        """Serve until told to stop, or until none of them has anything left to do.

        SIGINT and SIGTERM drain, then abort; SIGHUP makes each load its service anew.
        """
        watch = self._watch
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            stack.enter_context(heeding_signals(self))
            for serving in self._servings:
                self._start(serving)
                stack.enter_context(serving.handing_over())
            if ready is not None:
                ready()
            stack.enter_context(announced())
            while watch.draining is None and (self._children or self._due):
                self._replace_who_is_due()
                watch.turn(min(at for at, _ in self._due) - time.monotonic() if self._due else None)
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

    def _start(self, serving: Serving) -> None:
        def live() -> None:
            self._children.forget()
            self._stop.disown()
            for other in self._servings:
                if other is not serving:
                    other.leave_to_others()
            for name in _MANAGERS:
                os.environ.pop(name, None)
            serving.move_here()
            serving.run()

        try:
            child = fork("server", live)
        except OSError as error:
            serving.observe(Strained(error.errno or 0, 0))
            self._come_back(serving, None)
            return
        self._children.add(child, lambda child: self._ended(serving, child))

    def _ended(self, serving: Serving, child: Child) -> None:
        if child.status:
            serving.observe(Exited(child.pid, child.role, child.status))
            self._come_back(serving, child)
        else:
            serving.let_go()  # it has nothing left to do, or was taken over: nobody may wait for it here

    def _come_back(self, serving: Serving, child: Child | None) -> None:
        if not serving.server.is_draining:
            self._due.append((time.monotonic() + self._pauses[id(serving)].after(child), serving))

    def _replace_who_is_due(self) -> None:
        now = time.monotonic()
        due = [serving for at, serving in self._due if at <= now]
        self._due = [(at, serving) for at, serving in self._due if at > now]
        for serving in due:
            self._start(serving)

    def _drain_all(self) -> None:
        self._due.clear()
        for serving in self._servings:
            serving.server.drain()
            serving.server.let_go()  # the children have these too, and are told
        longest = max(serving.options.limits.drain for serving in self._servings)
        deadline = time.monotonic() + longest + 2 * GRACE  # theirs is a grace period for their own workers
        while self._children and (left := deadline - time.monotonic()) > 0:
            self._watch.turn(left)
            if self._watch.aborting is not None:
                for serving in self._servings:
                    serving.server.abort()
                deadline = min(deadline, self._watch.aborting + 2 * GRACE)
        self._children.signal(signal.SIGKILL)
        self._children.wait(None)

    def _close(self) -> None:
        for serving in self._servings:
            serving.let_go()
        self._stop.close()


def run_all(found: Sequence[ServeOptions]) -> None:
    """Serve all of them, until told to stop.

    Raises:
        BothendsError: one of them can't be bound; then nothing is served.
    """
    with contextlib.ExitStack() as stack:
        servings = []
        for options in found:
            serving = Serving(options, among_others=True)
            stack.callback(serving.close)
            servings.append(serving)
        stack.pop_all()

        def show() -> None:
            for each in servings:
                banner.show(each)

        Supervisor(servings).run(show)
