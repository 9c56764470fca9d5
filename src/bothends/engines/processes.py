"""Processes that a server starts: making them, noticing their end, ending them.

What the kernel does, and what follows:

1. A child that has ended stays in the process table until its parent asks for its status (a
   zombie). Asking for any child, waitpid(-1), would take that answer from whoever else in this
   process has started one, so each is asked for by its number. Which one has ended is told by a
   pidfd (pidfd_open(2), Linux 5.3), a descriptor that turns readable at the end: poll() waits for it
   beside the sockets, and SIGCHLD, of which there is one in each process, is left alone.
2. fork() copies what is buffered and not yet written, so standard output and error are flushed before
   it; and a child leaves by _exit(), which flushes nothing twice and runs nothing that was
   registered for the parent's end.
3. ^C at a terminal sends SIGINT to the whole foreground group, and a service manager may send SIGTERM
   to every process it finds. What the parent handles, a child ignores: it is told by the latch,
   conversations end in good order, and the parent's death sets the latch too. What the parent
   leaves to the system still ends the child.
4. fork() copies the calling thread only. A lock that another thread holds at that moment stays locked
   in the child for ever, which is why Python 3.12 and later warn. The engines that fork start no
   thread in the parent, and the command line's only one (`signals.interrupt_on_signal`) holds nothing while it waits;
   a program that has threads of its own should choose another engine.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

from bothends.engines.acceptor import PollLoop
from bothends.engines.shutdown import ShutdownFlags
from bothends.errors import BothendsError
from bothends.events import AcceptPaused, AcceptResumed, ChildExited, Observer
from bothends.osutil.signals import interrupt_on_signal

# From the moment at which a child should have gone until it is killed: time to notice, on a busy machine.
KILL_GRACE: Final = 1.0

# How soon a child that died is replaced: at once, but a child that dies again and again has a reason
# that goes on, and replacing it without a pause would eat a processor.
_INITIAL_BACKOFF: Final = 0.1
_MAX_BACKOFF: Final = 5.0

# As plain numbers. The signal module names each that it is given, or gives, which for those that have no name
# is a failed search: at a thousand forks a second all 64 of them would be most of the time.
_SIGNAL_NUMBERS: Final = tuple(map(int, signal.valid_signals()))

# Who has lived for so long was well: its death has nothing to do with how it began.
_STABLE_AFTER: Final = 5.0


class Child:
    """A process that we have started. `status` is None until it has ended and been asked for.

    Args:
        pid: its number.
        role: what it is, for the event of its end.
        ask: gives the exit status (negative: the signal) once there is one; waitpid unless given.
    """

    def __init__(self, pid: int, role: str, poll: Callable[[], int | None] | None = None) -> None:
        self.pid = pid
        self.role = role
        self.started_at = time.monotonic()
        self.status: int | None = None
        self._poll = poll or self._waitpid
        try:
            self._descriptor = os.pidfd_open(pid)
        except (AttributeError, OSError):  # no such call here, or no descriptor left
            self._descriptor = -1

    def fileno(self) -> int:
        """A descriptor that turns readable at its end; -1 where there is none and it has to be asked."""
        return self._descriptor

    def has_ended(self) -> bool:
        """Whether it has ended; then it is no zombie any more either. Never blocks."""
        if self.status is None:
            self.status = self._poll()
        return self.status is not None

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send it a signal, or with `group` all of the process group that it leads."""
        # Its number is its own as long as nobody has asked for its status.
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(self.pid, number)

    def close(self) -> None:
        """Give the descriptor back."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _waitpid(self) -> int | None:
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # SIGCHLD is ignored here, or someone else has asked
            return 0
        return os.waitstatus_to_exitcode(status) if pid else None


def fork(role: str, main: Callable[[], object]) -> Child:
    """Run `main` in a child, which ends with it: with status 0, or 1 where it raises.

    Raises:
        OSError: as fork(2); EAGAIN at a limit on processes.
    """
    flush_stdio()
    handled = [number for number in _SIGNAL_NUMBERS if callable(signal.getsignal(number))]
    # No signal between the fork and the child's own ways to deal with it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    try:
        pid = os.fork()
        if pid == 0:
            _child_main(main, handled, mask)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return Child(pid, role)


def _child_main(main: Callable[[], object], handled: Iterable[int], mask: Iterable[int]) -> NoReturn:
    status = 1
    try:
        _ignore_parent_signals(handled)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        main()
        status = 0
    except BothendsError as error:
        print(f"bothends: {error}", file=sys.stderr)  # noqa: T201
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else bool(exit_.code)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            flush_stdio()
        finally:
            os._exit(status)


def _ignore_parent_signals(handled: Iterable[int]) -> None:
    """Ignore the signals that the parent handles (fact 3)."""
    signal.set_wakeup_fd(-1)  # the parent's event loop must not hear of our signals
    for number in handled:
        if number == signal.SIGHUP:
            continue  # reloading: each process does it for itself, when it is told
        # Ignoring SIGCHLD would take the children's statuses away from who waits for them.
        signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.SIG_IGN)


def flush_stdio() -> None:
    """Hand over what is buffered for standard output and error, where there are any."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
            stream.flush()


class ChildSet:
    """The processes that one loop has started and waits for, in its `TrafficWatcher`."""

    def __init__(self, poll_loop: PollLoop, observe: Observer | None) -> None:
        self._poll_loop = poll_loop
        self._observe = observe
        self._all: dict[int, tuple[Child, Callable[[], object]]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, child: Child, on_exit: Callable[[Child], object]) -> None:
        """Wait for a child's end; then ask for its status, tell it, and call `on_exit`."""

        def look() -> None:
            if child.has_ended():
                self._remove(child, look)
                if self._observe is not None:
                    self._observe(ChildExited(child.pid, child.role, child.status or 0))
                on_exit(child)

        self._all[child.pid] = child, look
        if child.fileno() >= 0:
            self._poll_loop.add(child.fileno(), look)
        else:
            self._poll_loop.without_fd.add(look)

    def signal(self, number: int, *, groups: bool = False) -> None:
        """Send a signal to all of them, or to the process groups that they lead."""
        for child, _ in list(self._all.values()):
            child.signal(number, group=groups)

    def wait(self, timeout: float | None) -> None:
        """Wait until all of them have ended, or for so long."""
        until = None if timeout is None else time.monotonic() + timeout
        while self._all and (until is None or time.monotonic() < until):
            self._poll_loop.run_once(None if until is None else until - time.monotonic())

    def close_in_child(self) -> None:
        """In a child after fork: the others are the parent's. Give their descriptors back."""
        for child, _ in list(self._all.values()):
            child.close()
        self._all.clear()

    def _remove(self, child: Child, check: Callable[[], None]) -> None:
        del self._all[child.pid]
        self._poll_loop.without_fd.discard(check)
        if child.fileno() >= 0:
            self._poll_loop.remove(child.fileno())
            child.close()


class RestartBackoff:
    """How long to wait before whoever died is replaced: longer each time, as long as they die young."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def next_delay(self, child: Child | None) -> float:
        """Seconds to wait after the end of a child; None for one that could not even be made."""
        if child is not None and time.monotonic() - child.started_at >= _STABLE_AFTER:
            self._seconds = 0.0
        else:
            self._seconds = min(max(_INITIAL_BACKOFF, 2 * self._seconds), _MAX_BACKOFF)
        return self._seconds


class WorkerPool:
    """Keeps so many processes alive, all of which do the same, until the server drains.

    Args:
        count: how many.
        main: what each of them does, in the child; given a Stop that only this process can set, or
            its death. It should return when that says so.
        stop: tells this process, and by that all of them, to stop.
        observe: told of each end (Exited), and when no process could be made (Strained).
        grace: seconds from being told to drain until `main` should have returned. Who hasn't some
            time after that is killed; SIGKILL, because there is nothing left that it could be told.
        on_drain: called here when the server drains: the place to close what this process has open
            for the workers' sake, so that no listener outlives them.
        role: what they are called in events.
    """

    def __init__(
        self,
        count: int,
        main: Callable[[ShutdownFlags], object],
        stop: ShutdownFlags,
        observe: Observer | None = None,
        *,
        grace: float,
        on_drain: Callable[[], object] | None = None,
        role: str = "worker",
    ) -> None:
        self._main = main
        self._stop = stop
        self._observe = observe
        self._grace = grace
        self._on_drain = on_drain
        self._role = role
        self._poll_loop = PollLoop(stop)
        self._children = ChildSet(self._poll_loop, observe)
        self._start_times = [0.0] * count  # a heap: when to start those who are missing
        self._backoff = RestartBackoff()
        self._fork_failing = False
        self._reload_count = 0

    def run(self) -> None:
        """Start them, replace who dies, and come back when the server has drained and all are gone."""
        watch = self._poll_loop
        while watch.draining_since is None:
            pause = self._start_times[0] - time.monotonic() if self._start_times else None
            if pause is not None and pause <= 0:
                heapq.heappop(self._start_times)
                self._start_worker()
                pause = 0.0
            watch.run_once(pause)
        if self._on_drain is not None:
            self._on_drain()
        while self._children:
            over = (
                watch.draining_since + self._grace if watch.aborting_since is None else watch.aborting_since
            )
            if (left := over + KILL_GRACE - time.monotonic()) <= 0:
                break
            watch.run_once(left)
        self._children.signal(signal.SIGKILL)
        self._children.wait(None)

    def reload_all(self) -> None:
        """Send SIGHUP to all of them, and to whoever is just being made. From any thread."""
        self._reload_count += 1
        self._children.signal(signal.SIGHUP)

    def _start_worker(self) -> None:
        hang_ups = self._reload_count
        try:
            child = fork(self._role, self._child_main)
        except OSError as error:
            if self._observe is not None and not self._fork_failing:
                self._observe(AcceptPaused(error.errno or errno.EAGAIN, len(self._children)))
            self._fork_failing = True
            self._schedule_restart(None)
            return
        if self._observe is not None and self._fork_failing:
            self._observe(AcceptResumed())
        self._fork_failing = False
        self._children.add(child, self._schedule_restart)
        if self._reload_count != hang_ups:  # it may have been forked too early, and added too late
            child.signal(signal.SIGHUP)

    def _child_main(self) -> None:
        self._children.close_in_child()
        self._stop.detach_in_child()
        with interrupt_on_signal():
            self._main(self._stop)

    def _schedule_restart(self, child: Child | None) -> None:
        heapq.heappush(self._start_times, time.monotonic() + self._backoff.next_delay(child))
