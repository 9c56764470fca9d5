"""Wake a thread that waits in select(), poll() or epoll_wait(): the self-pipe trick.

A pipe is the one thing that every way of waiting can wait for, and that other threads and signal handlers
may write to (signal-safety(7)). Both ends are non-blocking, so `wake` never blocks: a full pipe means that
wakeups are already pending.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Final

_DRAIN_SIZE: Final = 65536  # bytes: a pipe holds no more by default (pipe(7))


class WakeupPipe:
    """A non-blocking, close-on-exec pipe. Wait until it is readable; `wake` makes it so."""

    __slots__ = ("_lock", "_reader", "_writer")

    def __init__(self) -> None:
        """Open the pipe. Raises OSError (EMFILE, ENFILE)."""
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # A thread may call `wake` while another closes the pipe and the descriptor's number is reused.
        # Reentrant, because a signal handler may interrupt `wake` in its own thread.
        self._lock = threading.RLock()

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._reader

    @property
    def writer(self) -> int:
        """The descriptor to write to, for signal.set_wakeup_fd()."""
        return self._writer

    def wake(self) -> None:
        """Make the pipe readable. Safe from any thread, in signal handlers, and after `close`."""
        with self._lock, contextlib.suppress(BlockingIOError):
            if self._writer >= 0:
                os.write(self._writer, b".")

    def drain(self) -> int:
        """Read all pending wakeups. Returns their number, 65,536 at most, or 0 if there are none."""
        try:
            return len(os.read(self._reader, _DRAIN_SIZE))
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Close both ends. Idempotent."""
        with self._lock:
            descriptors = {self._reader, self._writer} - {-1}
            self._reader = self._writer = -1
        for descriptor in descriptors:
            os.close(descriptor)
