"""When each row of a recording appears: at a pace that a viewer can follow. Pure.

Most of a run takes microseconds, and a hang takes minutes. So a pause between two rows has a minimum and a
maximum, and their real times stay in the first column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bothends.trace.rendering.layout import Row

FIRST_PAUSE: Final = 0.4  # seconds before the first row
MIN_PAUSE: Final = 0.3  # seconds between two rows
MAX_PAUSE: Final = 1.5  # seconds between two rows
COMMENT_PAUSE: Final = 1.2  # seconds before the first row without a time: a finding
END_PAUSE: Final = 7.0  # seconds for which the last row stays, before a recording begins again


def start_times(rows: Sequence[Row]) -> list[float]:
    """Return the time at which each row appears, in seconds. Rows of one finding appear together."""
    times: list[float] = []
    now, previous = FIRST_PAUSE, None
    for index, row in enumerate(rows):
        if row.at is not None:
            if previous is not None:
                now += min(max((row.at - previous) / 1e9, MIN_PAUSE), MAX_PAUSE)
            previous = row.at
        elif not row.is_header and index and rows[index - 1].bars and not row.bars:
            now += COMMENT_PAUSE
        times.append(now)
    return times
