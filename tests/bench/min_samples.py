"""Measure until there are enough samples: on a busy machine a short run may complete no request."""

from __future__ import annotations

from collections.abc import Callable

from bothends.bench.results import Round

DURATIONS = (0.05, 0.3, 2.0, 10.0)


def measure_until_enough(run: Callable[[float], Round], responses: int = 10) -> Round:
    """Run with increasing durations until there are enough responses or faults. Returns the last round."""
    for duration in DURATIONS:
        result = run(duration)
        if result.completed + result.faults.total >= responses or result.ended:
            break
    return result
