"""Signals to a server: the first SIGINT or SIGTERM drains, the second aborts, SIGHUP reloads.

Rank 1: imports nothing of ours; the server, its workers and whoever supervises several use it.

Python runs a handler in the main thread, between two bytecodes. A signal that comes after the last of them
and before the system call that waits is noted, and then slept on until something else happens: an idle
server would not hear SIGTERM. So somebody insists: the part of the handler that is in C writes to a
descriptor at once (`signal.set_wakeup_fd`); a thread reads there, and interrupts the main thread's call by
another signal (SIGURG, which nothing else here uses), so that Python looks again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final, Protocol

# Seconds from one interruption to the next. Each would have to come in the same few microseconds in vain.
_RETRY_DELAYS: Final = (0.0, 0.005, 0.05, 0.25)

_STOP_BYTE: Final = b"\0"  # no signal's number


class Stoppable(Protocol):
    """What signals can be about."""

    @property
    def is_draining(self) -> bool:
        """Whether it has been told to stop."""

    def drain(self) -> None:
        """Stop in good order. Safe in a signal handler."""

    def abort(self) -> None:
        """Stop now. Safe in a signal handler."""

    def reload(self) -> None:
        """Load anew. Called in a thread of its own."""


@contextlib.contextmanager
def handle_signals(target: Stoppable, *, only_sighup: bool = False) -> Iterator[None]:
    """While inside, and in the main thread: SIGINT and SIGTERM drain, then abort; SIGHUP reloads."""
    if not is_main_thread():
        yield
        return

    def told(_number: int, _frame: FrameType | None) -> None:
        if target.is_draining:
            target.abort()
        else:
            target.drain()

    had_terminal = _has_terminal()

    def hung_up(_number: int, _frame: FrameType | None) -> None:
        # The same signal says two things: load your files again, or your terminal has gone.
        if had_terminal and not _has_terminal():
            target.drain()
        else:
            threading.Thread(target=target.reload, name="bothends-reload", daemon=True).start()

    handlers = {signal.SIGHUP: hung_up}
    if not only_sighup:
        handlers |= {signal.SIGINT: told, signal.SIGTERM: told}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        with interrupt_on_signal():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interrupt_on_signal() -> Iterator[None]:
    """While inside, in the main thread: no signal that has a handler is slept on. See the top."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.signal(signal.SIGURG, _noop_handler)
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    over = threading.Event()
    insister = threading.Thread(
        target=_interrupt_main_thread,
        args=(reading, threading.get_ident(), over),
        name="bothends-signals",
        daemon=True,
    )
    insister.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        over.set()
        os.write(writing, _STOP_BYTE)  # closing would not tell it: a child may have the pipe open too
        insister.join()
        os.close(writing)
        os.close(reading)
        signal.signal(signal.SIGURG, before)


def is_main_thread() -> bool:
    """Whether this is the thread in which Python's signal handlers run."""
    return threading.current_thread() is threading.main_thread()


def _interrupt_main_thread(wakeup_fd: int, main_thread_id: int, stopped: threading.Event) -> None:
    while not stopped.is_set():
        if not set(os.read(wakeup_fd, 64)) - {signal.SIGURG}:
            continue  # our own only
        for pause in _RETRY_DELAYS:
            if stopped.wait(pause):
                break
            signal.pthread_kill(main_thread_id, signal.SIGURG)


def _noop_handler(_number: int, _frame: FrameType | None) -> None:
    """It was only to interrupt."""


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal that is still there (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
