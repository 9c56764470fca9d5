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
   thread in the parent, and the command line's only one (`signals.insisting`) holds nothing while it waits;
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

from bothends.engines.acceptor import Watch
from bothends.engines.shutdown import Stop
from bothends.errors import BothendsError
from bothends.events import Exited, Observer, Relieved, Strained
from bothends.osutil.signals import insisting

# From the moment at which a child should have gone until it is killed: time to notice, on a busy machine.
GRACE: Final = 1.0

# How soon a child that died is replaced: at once, but a child that dies again and again has a reason
# that goes on, and replacing it without a pause would eat a processor.
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0

# As plain numbers. The signal module names each that it is given, or gives, which for those that have no name
# is a failed search: at a thousand forks a second all 64 of them would be most of the time.
_NUMBERS: Final = tuple(map(int, signal.valid_signals()))

# Who has lived for so long was well: its death has nothing to do with how it began.
_WELL: Final = 5.0


class Child:
    """A process that we have started. `status` is None until it has ended and been asked for.

    Args:
        pid: its number.
        role: what it is, for the event of its end.
        ask: gives the exit status (negative: the signal) once there is one; waitpid unless given.
    """

    def __init__(self, pid: int, role: str, ask: Callable[[], int | None] | None = None) -> None:
        self.pid = pid
        self.role = role
        self.born = time.monotonic()
        self.status: int | None = None
        self._ask = ask or self._wait
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
            self.status = self._ask()
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

    def _wait(self) -> int | None:
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
    flush()
    handled = [number for number in _NUMBERS if callable(signal.getsignal(number))]
    # No signal between the fork and the child's own ways to deal with it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    try:
        pid = os.fork()
        if pid == 0:
            _live(main, handled, mask)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return Child(pid, role)


def _live(main: Callable[[], object], handled: Iterable[int], mask: Iterable[int]) -> NoReturn:
    status = 1
    try:
        _leave_to_parent(handled)
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
            flush()
        finally:
            os._exit(status)


def _leave_to_parent(handled: Iterable[int]) -> None:
    """Ignore the signals that the parent handles (fact 3)."""
    signal.set_wakeup_fd(-1)  # the parent's event loop must not hear of our signals
    for number in handled:
        if number == signal.SIGHUP:
            continue  # reloading: each process does it for itself, when it is told
        # Ignoring SIGCHLD would take the children's statuses away from who waits for them.
        signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.SIG_IGN)


def flush() -> None:
    """Hand over what is buffered for standard output and error, where there are any."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
            stream.flush()


class Children:
    """The processes that one loop has started and waits for, in its `Watch`."""

    def __init__(self, watch: Watch, observe: Observer | None) -> None:
        self._watch = watch
        self._observe = observe
        self._all: dict[int, tuple[Child, Callable[[], object]]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, child: Child, on_end: Callable[[Child], object]) -> None:
        """Wait for a child's end; then ask for its status, tell it, and call `on_end`."""

        def look() -> None:
            if child.has_ended():
                self._let_go(child, look)
                if self._observe is not None:
                    self._observe(Exited(child.pid, child.role, child.status or 0))
                on_end(child)

        self._all[child.pid] = child, look
        if child.fileno() >= 0:
            self._watch.add(child.fileno(), look)
        else:
            self._watch.sluggish.add(look)

    def signal(self, number: int, *, groups: bool = False) -> None:
        """Send a signal to all of them, or to the process groups that they lead."""
        for child, _ in list(self._all.values()):
            child.signal(number, group=groups)

    def wait(self, seconds: float | None) -> None:
        """Wait until all of them have ended, or for so long."""
        until = None if seconds is None else time.monotonic() + seconds
        while self._all and (until is None or time.monotonic() < until):
            self._watch.turn(None if until is None else until - time.monotonic())

    def forget(self) -> None:
        """In a child after fork: the others are the parent's. Give their descriptors back."""
        for child, _ in list(self._all.values()):
            child.close()
        self._all.clear()

    def _let_go(self, child: Child, look: Callable[[], None]) -> None:
        del self._all[child.pid]
        self._watch.sluggish.discard(look)
        if child.fileno() >= 0:
            self._watch.remove(child.fileno())
            child.close()


class Pause:
    """How long to wait before whoever died is replaced: longer each time, as long as they die young."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def after(self, child: Child | None) -> float:
        """Seconds to wait after the end of a child; None for one that could not even be made."""
        if child is not None and time.monotonic() - child.born >= _WELL:
            self._seconds = 0.0
        else:
            self._seconds = min(max(_FIRST_PAUSE, 2 * self._seconds), _LONGEST_PAUSE)
        return self._seconds


class Workers:
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
        main: Callable[[Stop], object],
        stop: Stop,
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
        self._watch = Watch(stop)
        self._children = Children(self._watch, observe)
        self._due = [0.0] * count  # a heap: when to start those who are missing
        self._pause = Pause()
        self._strained = False
        self._hang_ups = 0

    def run(self) -> None:
        """Start them, replace who dies, and come back when the server has drained and all are gone."""
        watch = self._watch
        while watch.draining is None:
            pause = self._due[0] - time.monotonic() if self._due else None
            if pause is not None and pause <= 0:
                heapq.heappop(self._due)
                self._start()
                pause = 0.0
            watch.turn(pause)
        if self._on_drain is not None:
            self._on_drain()
        while self._children:
            over = watch.draining + self._grace if watch.aborting is None else watch.aborting
            if (left := over + GRACE - time.monotonic()) <= 0:
                break
            watch.turn(left)
        self._children.signal(signal.SIGKILL)
        self._children.wait(None)

    def hang_up(self) -> None:
        """Send SIGHUP to all of them, and to whoever is just being made. From any thread."""
        self._hang_ups += 1
        self._children.signal(signal.SIGHUP)

    def _start(self) -> None:
        hang_ups = self._hang_ups
        try:
            child = fork(self._role, self._live)
        except OSError as error:
            if self._observe is not None and not self._strained:
                self._observe(Strained(error.errno or errno.EAGAIN, len(self._children)))
            self._strained = True
            self._replace(None)
            return
        if self._observe is not None and self._strained:
            self._observe(Relieved())
        self._strained = False
        self._children.add(child, self._replace)
        if self._hang_ups != hang_ups:  # it may have been forked too early, and added too late
            child.signal(signal.SIGHUP)

    def _live(self) -> None:
        self._children.forget()
        self._stop.disown()
        with insisting():
            self._main(self._stop)

    def _replace(self, child: Child | None) -> None:
        heapq.heappush(self._due, time.monotonic() + self._pause.after(child))
