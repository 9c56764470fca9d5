"""Signal handling of servers: the first SIGINT or SIGTERM drains, the second aborts, SIGHUP reloads.

Rank 1: imports the standard library only. Servers, workers and supervisors use it.

Python runs a signal handler in the main thread, between two bytecodes. If a signal arrives after the last
bytecode and before a blocking system call, its handler runs only once that call returns: an idle server would
not react to SIGTERM. But the C part of Python's signal handling writes to a descriptor at once
(`signal.set_wakeup_fd`). A thread reads from it, and interrupts the main thread's system call with another
signal (SIGURG, which nothing else here uses), so that Python runs the pending handlers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final, Protocol

# Seconds between interruptions. All are lost only if each arrives in the same few microseconds.
_RETRY_DELAYS: Final = (0.0, 0.005, 0.05, 0.25)

_STOP_BYTE: Final = b"\0"  # not a signal number


class Stoppable(Protocol):
    """A server that signals stop and reload."""

    @property
    def is_draining(self) -> bool:
        """Whether `drain` or `abort` has been called."""

    def drain(self) -> None:
        """Stop accepting, and let open conversations end. Safe in a signal handler."""

    def abort(self) -> None:
        """Stop at once. Safe in a signal handler."""

    def reload(self) -> None:
        """Reload the service. Called in a new thread."""


@contextlib.contextmanager
def handle_signals(target: Stoppable, *, only_sighup: bool = False) -> Iterator[None]:
    """Handle signals in this context: SIGINT and SIGTERM drain, then abort; SIGHUP reloads.

    Outside the main thread it does nothing. With `only_sighup`, SIGINT and SIGTERM keep their handlers.
    """
    if not is_main_thread():
        yield
        return

    def on_stop(_number: int, _frame: FrameType | None) -> None:
        if target.is_draining:
            target.abort()
        else:
            target.drain()

    had_terminal = _has_terminal()

    def on_sighup(_number: int, _frame: FrameType | None) -> None:
        # SIGHUP has two meanings: reload the files, or the terminal was closed.
        if had_terminal and not _has_terminal():
            target.drain()
        else:
            threading.Thread(target=target.reload, name="bothends-reload", daemon=True).start()

    handlers = {signal.SIGHUP: on_sighup}
    if not only_sighup:
        handlers |= {signal.SIGINT: on_stop, signal.SIGTERM: on_stop}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        with interrupt_on_signal():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interrupt_on_signal() -> Iterator[None]:
    """Make each handled signal interrupt the main thread's system call. For use in the main thread."""
    wakeup_r, wakeup_w = os.pipe()
    os.set_blocking(wakeup_w, False)
    before = signal.signal(signal.SIGURG, _noop_handler)
    previous_fd = signal.set_wakeup_fd(wakeup_w, warn_on_full_buffer=False)
    stopped = threading.Event()
    thread = threading.Thread(
        target=_interrupt_main_thread,
        args=(wakeup_r, threading.get_ident(), stopped),
        name="bothends-signals",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous_fd)
        stopped.set()
        os.write(wakeup_w, _STOP_BYTE)  # closing causes no EOF if a child process has the pipe open too
        thread.join()
        os.close(wakeup_w)
        os.close(wakeup_r)
        signal.signal(signal.SIGURG, before)


def is_main_thread() -> bool:
    """Return whether this is the main thread, in which Python runs signal handlers."""
    return threading.current_thread() is threading.main_thread()


def _interrupt_main_thread(wakeup_fd: int, main_thread_id: int, stopped: threading.Event) -> None:
    while not stopped.is_set():
        if not set(os.read(wakeup_fd, 64)) - {signal.SIGURG}:
            continue  # only the interruptions themselves
        for delay in _RETRY_DELAYS:
            if stopped.wait(delay):
                break
            signal.pthread_kill(main_thread_id, signal.SIGURG)


def _noop_handler(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the signal only interrupts a system call."""


def _has_terminal() -> bool:
    """Return whether this process has a controlling terminal that is still open (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
