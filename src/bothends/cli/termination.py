"""How a verb that has started other programs ends when it is told to: with nothing left behind.

SIGTERM and a lost terminal (SIGHUP) become SystemExit, as ^C is KeyboardInterrupt: whatever is on the stack
cleans up as it unwinds. The exit status is what a shell shows for the signal, 128 and its number.
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
    """A handler of signals, for signal.signal()."""
    sys.exit(128 + number)


@contextlib.contextmanager
def raise_exit_on_signals() -> Iterator[None]:
    """While inside, SIGTERM and SIGHUP raise SystemExit. Enter it before the first program is started."""
    before = [signal.signal(number, exit_on_signal) for number in TERMINATION_SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(TERMINATION_SIGNALS, before, strict=True):
            signal.signal(number, handler)


async def run_until_signal(work: Coroutine[None, None, T]) -> T:
    """Await `work` in the main task of asyncio.run(); SIGTERM and SIGHUP cancel it, then raise SystemExit.

    An exception out of a handler could strike where an event loop isn't made for it; so here none does.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    told: list[int] = []

    def stop(number: int) -> None:
        told.append(number)
        task.cancel()

    for number in TERMINATION_SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        return await work
    except asyncio.CancelledError:
        if told:
            exit_on_signal(told[0])
        raise
