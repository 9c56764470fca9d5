"""Flags that stop an engine: set from a signal handler, another thread, or a parent process.

A flag is a pipe. Engines wait for its read end, to which no data is ever written. Setting the flag closes the
write end, and the kernel then reports EOF to every waiter, now and later, in every process that inherited the
read end: there is no byte that one waiter could take from the others, and nothing to reset. close() is safe
in a signal handler. And if the process that holds the write end exits, the kernel closes it and so sets the
flag: a worker does not outlive its parent.
"""

from __future__ import annotations

import os
import select


class ShutdownFlag:
    """A flag that poll() can wait for and that fork() shares. It cannot be cleared."""

    __slots__ = ("_reader", "_writer")

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the flag is set."""
        return self._reader

    def set(self) -> None:
        """Set the flag, in every process that shares it. Idempotent."""
        writer, self._writer = self._writer, -1
        if writer >= 0:
            os.close(writer)

    def is_set(self) -> bool:
        """Whether the flag has been set, in any process."""
        if self._writer < 0 and self._reader < 0:
            return True
        poller = select.poll()
        poller.register(self._reader, select.POLLIN)
        return bool(poller.poll(0))

    def wait(self) -> None:
        """Block until the flag is set, in any process."""
        poller = select.poll()
        poller.register(self._reader, select.POLLIN)
        poller.poll()

    def detach_in_child(self) -> None:
        """After fork(), in the child: close the write end, so that only the parent holds it."""
        self.set()

    def close(self) -> None:
        """Set the flag and close both descriptors."""
        self.set()
        reader, self._reader = self._reader, -1
        if reader >= 0:
            os.close(reader)


class ShutdownFlags:
    """The two stages of a shutdown: `draining` lets conversations end, `aborting` aborts them."""

    __slots__ = ("aborting", "closed", "draining")

    def __init__(self) -> None:
        self.draining = ShutdownFlag()
        self.aborting = ShutdownFlag()
        self.closed = False

    def detach_in_child(self) -> None:
        """After fork(), in the child: leave it to the parent, or the parent's death, to set the flags."""
        self.draining.detach_in_child()
        self.aborting.detach_in_child()

    def close(self) -> None:
        """Close the descriptors. Idempotent."""
        self.closed = True
        self.draining.close()
        self.aborting.close()
