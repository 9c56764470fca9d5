"""Telling an engine to stop: from a signal handler, another thread, or a parent process.

A latch is a pipe of which only the reading end is ever waited for. Setting it closes the writing
end, and the kernel then reports EOF to everyone who waits, in every process that inherited the
reading end, now and later: no byte that one of them could take from the others, and nothing to
reset. Closing is safe inside a signal handler. And if the process that holds the writing end dies,
the latch is set by that alone, so a worker never outlives its parent unawares.
"""

from __future__ import annotations

import os
import select


class ShutdownFlag:
    """A flag that poll() can wait for and that crosses fork(). Once set it stays set."""

    __slots__ = ("_reader", "_writer")

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def fileno(self) -> int:
        """The descriptor that turns readable when the latch is set."""
        return self._reader

    def set(self) -> None:
        """Set it, for every holder. Idempotent."""
        writer, self._writer = self._writer, -1
        if writer >= 0:
            os.close(writer)

    def is_set(self) -> bool:
        """Whether it has been set, by anyone."""
        if self._writer < 0 and self._reader < 0:
            return True
        poller = select.poll()
        poller.register(self._reader, select.POLLIN)
        return bool(poller.poll(0))

    def wait(self) -> None:
        """Block until it has been set, by anyone."""
        poller = select.poll()
        poller.register(self._reader, select.POLLIN)
        poller.poll()

    def detach_in_child(self) -> None:
        """In a child after fork: let go of the writing end, so that the parent's is the only one."""
        self.set()

    def close(self) -> None:
        """Set it and give back both descriptors."""
        self.set()
        reader, self._reader = self._reader, -1
        if reader >= 0:
            os.close(reader)


class ShutdownFlags:
    """The two stages of stopping: `draining` lets conversations end, `aborting` cuts them off."""

    __slots__ = ("aborting", "closed", "draining")

    def __init__(self) -> None:
        self.draining = ShutdownFlag()
        self.aborting = ShutdownFlag()
        self.closed = False

    def detach_in_child(self) -> None:
        """In a child after fork: only the parent can stop us now, or its death."""
        self.draining.detach_in_child()
        self.aborting.detach_in_child()

    def close(self) -> None:
        """Give the descriptors back. Idempotent."""
        self.closed = True
        self.draining.close()
        self.aborting.close()
