"""Read which line a program executed at a time, from the memory that code in it writes to.

That is `sitecustomize.py` in a Python program, `library_calls.c` in one in C, `java_lines.c` in one in Java.

    region:  count (8 bytes), in use (8 bytes), records; number N is in place N modulo their number
    record:  time (8 bytes, nanoseconds since 1970), thread (4 bytes), line (4 bytes; 0: none of its own)

1. A line is recorded before it makes its calls, and strace has the same clock: so the line of a call is that
   of the thread's last record before the call started.
2. The program can write to the memory as it likes. So nothing in it is believed for more than a line number,
   and a wrong one marks a wrong line.
3. A program that executes lines faster than they are read overwrites records. Then nothing is said about the
   time before the oldest one that is left.
"""

from __future__ import annotations

import bisect
import mmap
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

VARIABLE: Final = "BOTHENDS_LINES"
HOOK: Final = Path(__file__).with_name("sitecustomize.py")
_HEADER: Final = struct.Struct("<QQ")
_RECORD: Final = struct.Struct("<qII")
_ROOM: Final = 16_384  # records of a region
_REGIONS: Final = 8  # processes
_SIZE: Final = _HEADER.size + _ROOM * _RECORD.size
_MAX_THREADS: Final = 1000
_MAX_KEPT: Final = 100_000  # records of a thread


@dataclass(slots=True)
class _Thread:
    times: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


class LineRecords:
    """The records of one program. Close it at the end.

    Args:
        line_of: makes a line of what is recorded in its place, None if there is none.
    """

    def __init__(self, line_of: Callable[[int], int | None] = lambda line: line or None) -> None:
        self._line_of = line_of
        self.descriptor = os.memfd_create("lines", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, _SIZE * _REGIONS)
        self._memory = mmap.mmap(self.descriptor, _SIZE * _REGIONS)
        self._counts = [0] * _REGIONS
        self._threads: dict[int, _Thread] = {}
        self._known_since = 0  # of earlier times nothing is known

    def variables(self, file: str, **others: str) -> dict[str, str]:
        """Return the environment of the program: what the code in it needs, and the `others`."""
        return {VARIABLE: f"{self.descriptor} {_SIZE} {_REGIONS} {file}", **others}

    def line_at(self, thread: int, at: int) -> int | None:
        """Return the line that a thread executed at a time (nanoseconds); None if that is not known.

        `thread` is its id in the program's own PID namespace.
        """
        self.read()
        found = self._threads.get(thread)
        if found is None or at < self._known_since:
            return None
        index = bisect.bisect_right(found.times, at) - 1
        return self._line_of(found.lines[index]) if index >= 0 else None

    def read(self) -> None:
        """Read the new records."""
        for region in range(_REGIONS):
            start = region * _SIZE
            count = _HEADER.unpack_from(self._memory, start)[0]
            first = self._counts[region]
            if count == first:
                continue
            new = [
                _RECORD.unpack_from(self._memory, start + _HEADER.size + number % _ROOM * _RECORD.size)
                for number in range(max(first, count - _ROOM), count)
            ] if first < count else []  # fmt: skip
            overwritten = _HEADER.unpack_from(self._memory, start)[0] - _ROOM
            if overwritten > first:
                new = new[max(0, overwritten - max(first, count - _ROOM)) :]
                self._forget(new[0][0] if new else 0)
            self._counts[region] = count
            for at, thread, line in new:
                self._add(at, thread, line)

    def _forget(self, since: int) -> None:
        self._threads.clear()
        self._known_since = max(self._known_since, since)

    def _add(self, at: int, thread: int, line: int) -> None:
        found = self._threads.get(thread)
        if found is None:
            if len(self._threads) >= _MAX_THREADS:
                return
            found = self._threads[thread] = _Thread()
        if found.times and at < found.times[-1]:
            return  # the clock was set back, or the program has written this
        found.times.append(at)
        found.lines.append(line)
        if len(found.times) > _MAX_KEPT:
            del found.times[: _MAX_KEPT // 2], found.lines[: _MAX_KEPT // 2]

    def close(self) -> None:
        """Release the memory."""
        self._memory.close()
        os.close(self.descriptor)
