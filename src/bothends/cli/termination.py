"""Termination by signals, for verbs that start child processes and must clean them up.

SIGTERM and SIGHUP (a lost terminal) raise SystemExit, as ^C raises KeyboardInterrupt, so that context
managers clean up while the stack unwinds. The exit status is the shell's: 128 plus the signal number.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine, Iterator
from typing import Final, TypeVar

T = TypeVar("T")

TERMINATION_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)


def exit_on_signal(number: int, _frame: object = None) -> None:
    """Raise SystemExit; a handler for signal.signal()."""
    sys.exit(128 + number)


@contextlib.contextmanager
def raise_exit_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise SystemExit in the context. Enter it before starting a child process."""
    previous = [signal.signal(number, exit_on_signal) for number in TERMINATION_SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(TERMINATION_SIGNALS, previous, strict=True):
            signal.signal(number, handler)


async def run_until_signal(work: Coroutine[None, None, T]) -> T:
    """Await `work` in the main task of asyncio.run(); SIGTERM and SIGHUP cancel it, then raise SystemExit.

    The handlers raise nothing themselves, because an exception could then occur anywhere in the event loop,
    which cannot recover from it.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    received: list[int] = []

    def stop(number: int) -> None:
        received.append(number)
        task.cancel()

    for number in TERMINATION_SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        return await work
    except asyncio.CancelledError:
        if received:
            exit_on_signal(received[0])
        raise
