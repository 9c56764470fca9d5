"""Wake a thread that waits in select(), poll() or epoll_wait(): the self-pipe trick.

A byte in a pipe is the one thing that every way of waiting can wait for, and that a signal handler and any
other thread may write (signal-safety(7)). Both ends are non-blocking, so `wake` never blocks: a full pipe means
that a wakeup is already pending.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

_DRAIN_SIZE: Final = 4096  # bytes read at once; a pipe holds 64 KiB (pipe(7))


class WakeupPipe:
    """A non-blocking, close-on-exec pipe. Wait until it is readable; `wake` makes it so."""

    __slots__ = ("_reader", "_writer")

    def __init__(self) -> None:
        """Open the pipe. Raises OSError (EMFILE, ENFILE)."""
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._reader

    @property
    def writer(self) -> int:
        """The descriptor to write to, for signal.set_wakeup_fd()."""
        return self._writer

    def wake(self) -> None:
        """Make the pipe readable. Safe in signal handlers and from any thread, and after `close`."""
        # BlockingIOError: a wakeup is already pending. EBADF: closed, so nothing waits any more.
        with contextlib.suppress(OSError):
            os.write(self._writer, b".")

    def drain(self) -> None:
        """Read all pending wakeups, so that the pipe is no longer readable."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._reader, _DRAIN_SIZE)) == _DRAIN_SIZE:
                pass

    def close(self) -> None:
        """Close both ends."""
        os.close(self._reader)
        os.close(self._writer)
