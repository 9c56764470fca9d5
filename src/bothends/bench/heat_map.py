"""Latencies over time: how many requests, due in each slice of the measured time, had which latency.

Pure. Latencies are in rows of an eighth of an octave (9 % or less apart), from 8 ns to an hour. The generator
in C counts in the same layout (requests.c, heat_add).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bothends.bench.histogram import HIGHEST

ROWS: Final = 42 * 8
COLUMNS: Final = 120
"""Slices of the measured time."""

_LOWEST: Final = 8


class HeatMap:
    """Counts of latencies by time: `counts[column, row]`."""

    __slots__ = ("counts",)

    def __init__(self, counts: NDArray[np.int64] | None = None) -> None:
        self.counts = np.zeros((COLUMNS, ROWS), np.int64) if counts is None else counts

    def add(self, elapsed: NDArray[np.int64], duration: int, latencies: NDArray[np.int64]) -> None:
        """Add latencies of requests that were due `elapsed` after the start, all in nanoseconds."""
        columns = np.clip(elapsed * COLUMNS // duration, 0, COLUMNS - 1)
        values = np.clip(latencies, _LOWEST, HIGHEST)
        octaves = np.frexp(values.astype(np.float64))[1].astype(np.int64) - 1
        np.add.at(self.counts, (columns, 8 * octaves + (values >> (octaves - 3)) - 8), 1)

    def columns(self) -> list[list[int]]:
        """Return for each slice of time its filled rows: row, count, row, count, ..."""
        found: list[list[int]] = []
        for column in self.counts:
            filled = np.flatnonzero(column)
            found.append([int(value) for row in filled for value in (row, column[row])])
        return found

    @classmethod
    def from_columns(cls, columns: Iterable[list[int]]) -> HeatMap:
        """Return the map of `columns`. Rows and columns out of range are ignored."""
        found = cls()
        for index, column in enumerate(columns):
            for row, count in zip(column[::2], column[1::2], strict=False):
                if index < COLUMNS and row < ROWS:
                    found.counts[index, row] += count
        return found


def merge_heat_maps(maps: Iterable[HeatMap]) -> HeatMap:
    """Return the sum of several maps."""
    total = HeatMap()
    for each in maps:
        total.counts += each.counts
    return total


def row_bound(row: int) -> int:
    """Return the lowest latency of a row, in nanoseconds."""
    octave, eighth = divmod(row, 8)
    return (8 + eighth << octave) >> 3
