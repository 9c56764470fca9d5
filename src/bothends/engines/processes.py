"""Child processes of a server: start them, notice when they exit, terminate them.

What the kernel does, and what follows:

1. A child that has exited stays in the process table, as a zombie, until its parent waits for it. waitpid(-1)
   would also reap children that other code in this process has started, so each child is reaped by its pid. A
   pidfd (pidfd_open(2), Linux 5.3) is a descriptor that becomes readable when the child exits: poll() can
   wait for it together with the sockets, and SIGCHLD, whose handler is one for the whole process, is not
   used.
2. fork() copies buffered output that is not yet written, so standard output and error are flushed before it.
   A child exits by _exit(), which does not flush the copies again and runs none of the parent's exit
   handlers.
3. ^C in a terminal sends SIGINT to the whole foreground process group, and a service manager may send SIGTERM
   to each process of the service. A child ignores the signals that the parent handles, because the shutdown
   flags stop it: conversations end normally, and the flags are set by the parent's death, too. Signals that
   the parent does not handle still have their default action in the child.
4. fork() copies the calling thread only. A lock that another thread holds at that moment stays locked in the
   child forever, which is why Python 3.12 and later warn. The engines that fork start no thread in the
   parent, and the command line's only thread (`signals.interrupt_on_signal`) holds no lock while it waits. A
   program with threads of its own should use another engine.
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

from bothends.engines.poll_loop import PollLoop
from bothends.engines.shutdown import ShutdownFlags
from bothends.errors import BothendsError
from bothends.escaping import escape_line
from bothends.events import AcceptPaused, AcceptResumed, ChildExited, Observer
from bothends.osutil.signals import interrupt_on_signal

# Seconds from the time at which a child should have exited until it is killed: enough on a busy machine.
KILL_GRACE: Final = 1.0

# Seconds before a worker that exited is replaced: short at first, and doubled for each further failure,
# because restarting a worker that fails at once, without a pause, would use a whole CPU.
_INITIAL_BACKOFF: Final = 0.1
_MAX_BACKOFF: Final = 5.0

# Plain integers. The signal module converts each number to an enum member, which for a number without a name
# is a failed lookup: for all 64 signals and a thousand forks a second that would take most of the time.
_SIGNAL_NUMBERS: Final = tuple(map(int, signal.valid_signals()))

# Seconds after which a worker is considered to have started well, so that its exit resets the backoff.
_STABLE_AFTER: Final = 5.0


class Child:
    """A child process. `status` is None until it has exited and has been reaped.

    Args:
        pid: the process id.
        role: what the process does, for the ChildExited event.
        poll: returns the exit status (negative: the number of the signal), or None while the process runs.
            Default: waitpid().
    """

    def __init__(self, pid: int, role: str, poll: Callable[[], int | None] | None = None) -> None:
        self.pid = pid
        self.role = role
        self.started_at = time.monotonic()
        self.status: int | None = None
        self._poll = poll or self._waitpid
        try:
            self._descriptor = os.pidfd_open(pid)
        except (AttributeError, OSError):  # not on this system, or EMFILE
            self._descriptor = -1

    def fileno(self) -> int:
        """Return the pidfd, which becomes readable when the process exits; -1 if there is none."""
        return self._descriptor

    def has_ended(self) -> bool:
        """Whether the process has exited. Reaps it. Never blocks."""
        if self.status is None:
            self.status = self._poll()
        return self.status is not None

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the process, or with `group` to the process group that it leads."""
        # The kernel does not reuse the pid before the process has been reaped.
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(self.pid, number)

    def close(self) -> None:
        """Close the pidfd."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _waitpid(self) -> int | None:
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # ECHILD: SIGCHLD is ignored, or other code has reaped the process
            return 0
        return os.waitstatus_to_exitcode(status) if pid else None


def fork(role: str, main: Callable[[], object]) -> Child:
    """Run `main` in a child process, which exits with status 0 when it returns, or 1 if it raises.

    Raises:
        OSError: as fork(2); EAGAIN at a limit on processes.
    """
    flush_stdio()
    handled = [number for number in _SIGNAL_NUMBERS if callable(signal.getsignal(number))]
    # Block the signals until the child has set its own dispositions.
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
        print(escape_line(f"bothends: {error}"), file=sys.stderr)  # noqa: T201
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
    signal.set_wakeup_fd(-1)  # the child's signals must not wake the parent's event loop
    for number in handled:
        if number == signal.SIGHUP:
            continue  # each process reloads the service itself
        # Ignoring SIGCHLD would discard the exit statuses of the child's own children (wait(2), "Notes").
        signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.SIG_IGN)


def flush_stdio() -> None:
    """Flush standard output and error, if they exist."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or None
            stream.flush()


class ChildSet:
    """The child processes of one process, watched by its `PollLoop`."""

    def __init__(self, poll_loop: PollLoop, observe: Observer | None) -> None:
        self._poll_loop = poll_loop
        self._observe = observe
        self._all: dict[int, tuple[Child, Callable[[], object]]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, child: Child, on_exit: Callable[[Child], object]) -> None:
        """Watch a child. When it exits, reap it, emit ChildExited, and call `on_exit`."""

        def check() -> None:
            if child.has_ended():
                self._remove(child, check)
                if self._observe is not None:
                    self._observe(ChildExited(child.pid, child.role, child.status or 0))
                on_exit(child)

        self._all[child.pid] = child, check
        if child.fileno() >= 0:
            self._poll_loop.add(child.fileno(), check)
        else:
            self._poll_loop.without_fd.add(check)

    def signal(self, number: int, *, groups: bool = False) -> None:
        """Send a signal to all children, or to the process groups that they lead."""
        for child, _ in list(self._all.values()):
            child.signal(number, group=groups)

    def wait(self, timeout: float | None) -> None:
        """Wait until all children have exited, for at most `timeout` seconds (None: no limit)."""
        until = None if timeout is None else time.monotonic() + timeout
        while self._all and (until is None or time.monotonic() < until):
            self._poll_loop.run_once(None if until is None else until - time.monotonic())

    def close_in_child(self) -> None:
        """After fork(), in the child: close the descriptors of the other children, and forget them."""
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
    """Exponential backoff for restarting workers. A worker that ran for long enough resets it."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def next_delay(self, child: Child | None) -> float:
        """Return the seconds to wait after a child exited. `child` is None if fork() failed."""
        if child is not None and time.monotonic() - child.started_at >= _STABLE_AFTER:
            self._seconds = 0.0
        else:
            self._seconds = min(max(_INITIAL_BACKOFF, 2 * self._seconds), _MAX_BACKOFF)
        return self._seconds


class WorkerPool:
    """Keeps `count` identical worker processes running until the server drains.

    Args:
        count: the number of workers.
        main: runs in each worker. Its argument is set by this process, or by this process's death. It should
            return when draining.
        stop: stops this process, and so all workers.
        observe: receives ChildExited, and AcceptPaused and AcceptResumed when fork() fails and works again.
        grace: seconds from the start of draining until `main` should have returned. A worker that still runs
            KILL_GRACE seconds later is sent SIGKILL.
        on_drain: called in this process when draining starts. Close the listeners here that this process
            holds open for its workers, so that no listener outlives them.
        role: the workers' role in events.
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
        self._start_times = [0.0] * count  # a heap: when to start each missing worker (time.monotonic)
        self._backoff = RestartBackoff()
        self._fork_failing = False
        self._reload_count = 0

    def run(self) -> None:
        """Start the workers, and replace each that exits. Returns when all have exited after draining."""
        loop = self._poll_loop
        while loop.draining_since is None:
            timeout = self._start_times[0] - time.monotonic() if self._start_times else None
            if timeout is not None and timeout <= 0:
                heapq.heappop(self._start_times)
                self._start_worker()
                timeout = 0.0
            loop.run_once(timeout)
        if self._on_drain is not None:
            self._on_drain()
        loop.run_until(lambda: not self._children, drain=self._grace, grace=KILL_GRACE)
        self._children.signal(signal.SIGKILL)
        self._children.wait(None)

    def reload_all(self) -> None:
        """Send SIGHUP to all workers, including one that is being started. Safe from any thread."""
        self._reload_count += 1
        self._children.signal(signal.SIGHUP)

    def _start_worker(self) -> None:
        reload_count = self._reload_count
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
        if self._reload_count != reload_count:  # forked before the reload, and added after its signals
            child.signal(signal.SIGHUP)

    def _child_main(self) -> None:
        self._children.close_in_child()
        self._stop.detach_in_child()
        with interrupt_on_signal():
            self._main(self._stop)

    def _schedule_restart(self, child: Child | None) -> None:
        heapq.heappush(self._start_times, time.monotonic() + self._backoff.next_delay(child))
