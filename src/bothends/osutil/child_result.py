"""Run a function in a child process, while this one does something else. Rank 1.

The child has a copy of everything (fork(2)), so that no argument has to be sent to it. On a machine with two
processors, two computations on one large structure take half the time.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class ChildResult(Generic[T]):
    """The result of a function, which begins to run. Use it in a with statement.

    If there is no child process to be had, or it fails, `get` runs the function.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._pid = self._reader = -1
        if threading.active_count() > 1 or (os.cpu_count() or 1) < 2:
            return
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        self._reader, writer = os.pipe()
        try:
            self._pid = os.fork()
        except OSError:
            os.close(writer)
            return
        if not self._pid:
            self._run_child(writer)
        os.close(writer)

    def _run_child(self, writer: int) -> None:
        status = 1
        try:
            os.close(self._reader)
            with os.fdopen(writer, "wb") as file:
                pickle.dump(self._function(), file)
            status = 0
        finally:
            os._exit(status)

    def get(self) -> T:
        """Return the result, once it is there. Called once."""
        if self._pid > 0:
            with os.fdopen(self._reader, "rb") as file:
                self._reader = -1
                data = file.read()
            _, status = os.waitpid(self._pid, 0)
            self._pid = -1
            if not status:
                found: T = pickle.loads(data)
                return found
        return self._function()

    def __enter__(self) -> ChildResult[T]:
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader >= 0:
            os.close(self._reader)
        if self._pid > 0:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
