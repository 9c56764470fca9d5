"""Search for the highest rate at which a latency bound holds.

Pure: a callback measures whether the bound holds at a rate. The rate is doubled until the bound is exceeded.
Then the search bisects (by the geometric mean) between the highest rate that held and the lowest that did
not, until the two are close.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bothends.bench.results import Round

TOLERANCE: Final = 1.05
"""The search ends when the lowest rate that failed is at most this factor above the highest that held."""

MAX_UNSENT_SHARE: Final = 0.001
"""Share of requests that may remain unsent, because they are due just before the end."""


@dataclass(frozen=True, slots=True)
class LatencyBound:
    """The bound: p99 in microseconds (from the time a request was due), and no faults."""

    p99_us: float

    def holds(self, result: Round) -> bool:
        """Whether a round stayed within the bound. With too few requests for a p99, the maximum counts."""
        latency = result.latency
        within = latency.percentiles_us.get("p99", latency.max_us) <= self.p99_us
        clean = not result.faults.total and not result.ended
        return bool(latency.n) and within and is_fully_sent(result) and clean


def is_fully_sent(result: Round) -> bool:
    """Whether all due requests were sent, except for `MAX_UNSENT_SHARE`."""
    return result.unsent <= max(1.0, MAX_UNSENT_SHARE * (result.latency.n + result.unsent))


def search(holds: Callable[[float], bool], start: float, *, max_trials: int = 24) -> tuple[float, float]:
    """Search from the rate `start`, with at most `max_trials` calls of `holds`.

    Returns the highest rate that held (0.0 if none) and the lowest that did not (infinity if none).
    """
    low, high, rate = 0.0, math.inf, start
    for _ in range(max_trials):
        if holds(rate):
            low = rate
        else:
            high = rate
        if low and high <= low * TOLERANCE:
            break
        if not low and rate < 1:
            break
        rate = low * 2 if math.isinf(high) else math.sqrt(low * high) if low else high / 4
    return low, high
