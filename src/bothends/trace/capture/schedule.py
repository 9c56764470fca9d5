"""When to look at a process again: often at first, because what it will do soon is not known. No I/O."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

MAX_PROCESSES: Final = 2_000  # that are looked at
# Seconds after a process was found, or started another program, at which it is looked at.
LOOKS: Final = (0.0, 0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
LAST_INTERVAL: Final = 2.0  # seconds between two later looks


class LookSchedule:
    """Says which processes are to be looked at. `clock` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looks: dict[int, tuple[float, int]] = {}  # by pid: since when, and the number of looks so far

    def knows(self, pid: int) -> bool:
        """Return whether a process is looked at."""
        return pid in self._looks

    def restart(self, pid: int) -> None:
        """Begin again with a process: it has started another program."""
        self._looks[pid] = (self._clock(), 0)

    def due(self, pids: Iterable[int]) -> tuple[list[int], float]:
        """Return the processes that are to be looked at now, and the seconds until the next ones are.

        Processes that are not in `pids` are forgotten after their first looks.
        """
        now, soonest, found = self._clock(), LAST_INTERVAL, []
        wanted = list(pids)[-MAX_PROCESSES:]
        for pid in wanted:
            self._looks.setdefault(pid, (now, 0))
        known = set(wanted)
        for pid, (since, count) in list(self._looks.items()):
            if pid not in known and count >= len(LOOKS):
                del self._looks[pid]
                continue
            if now >= since + _look_at(count):
                while now >= since + _look_at(count):
                    count += 1
                self._looks[pid] = (since, count)
                found.append(pid)
            soonest = min(soonest, since + _look_at(count) - now)
        return found, max(soonest, 0.0)


def _look_at(count: int) -> float:
    """Return when a look is due, in seconds, by the number of looks before it."""
    extra = max(count - len(LOOKS) + 1, 0)
    return LOOKS[min(count, len(LOOKS) - 1)] + extra * LAST_INTERVAL
