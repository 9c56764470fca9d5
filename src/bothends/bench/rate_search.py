"""The rate that a target can carry: the highest at which a bound still holds.

Pure: it asks `holds` of rates, and whoever answers measures them. Twice the rate until the bound is crossed,
then half-way between the last that held and the first that didn't, until the two are close.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bothends.bench.results import Round

TOLERANCE: Final = 1.05
"""The search ends when the first rate that did not hold is at most so many times the last that did."""

MAX_UNSENT_SHARE: Final = 0.001
"""Share of the requests that may stay unsent: their times fall just before the end."""


@dataclass(frozen=True, slots=True)
class LatencyBound:
    """What must hold: p99 within so many microseconds (from when a request was due), and no fault."""

    p99_us: float

    def holds(self, found: Round) -> bool:
        """Whether a round kept it. Where n can't carry a p99, the largest counts."""
        latency = found.latency
        within = latency.percentiles_us.get("p99", latency.max_us) <= self.p99_us
        return (
            bool(latency.n) and within and is_fully_sent(found) and not found.faults.total and not found.ended
        )


def is_fully_sent(found: Round) -> bool:
    """Whether what was due was sent, but for the last few (`SEND_FAILED`)."""
    return found.unsent <= max(1.0, MAX_UNSENT_SHARE * (found.latency.n + found.unsent))


def search(holds: Callable[[float], bool], start: float, *, max_trials: int = 24) -> tuple[float, float]:
    """(the highest rate that held, the lowest that didn't), 0.0 and infinity where none was met.

    `start` is the first rate; `most` bounds how many are tried.
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
