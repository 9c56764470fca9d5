"""Calls that fail because their descriptor is no socket, or none any more: which of them are drawn. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Final

from bothends.trace.capture.descriptors import DescriptorTable
from bothends.trace.model import Call

MAX_WRONG: Final = 50  # of each process: a loop may make them without end


class WrongDescriptors:
    """Counts such calls. `names`: the calls that need a socket."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._counts = Counter[int]()  # by process number

    def fill_in(self, call: Call, error: str, table: DescriptorTable) -> bool:
        """Return whether a call that has failed is drawn, and fill in the socket that its descriptor was.

        Drawn are EBADF for a socket that was closed, and without a socket ENOTSOCK and EBADF for -1: the
        descriptor of a Python socket object that is closed, or the result of a call that failed.
        """
        if error == "EBADF" and call.descriptor is not None:
            closed = table.closed_socket(call.descriptor)
            if closed is not None:
                call.socket = closed.number
                return True
        is_wrong = error == "ENOTSOCK" or (error == "EBADF" and call.descriptor == -1)
        if not is_wrong or call.name not in self._names:
            return False
        self._counts[call.process] += 1
        return self._counts[call.process] <= MAX_WRONG
