"""The search for the highest rate that a target sustains, on simulated targets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.bench.histogram import Histogram
from bothends.bench.rate_search import TOLERANCE, LatencyBound, search
from bothends.bench.results import Faults, GeneratorUsage, LatencySummary, Round


@given(st.floats(2, 1e7), st.floats(1, 1e6))
def test_search_finds_threshold_from_any_start(threshold: float, start: float) -> None:
    low, high = search(lambda rate: rate <= threshold, start, max_trials=100)
    assert low <= threshold < high <= low * TOLERANCE


def test_search_without_upper_or_lower_limit() -> None:
    low, high = search(lambda _: True, 100, max_trials=5)
    assert (low, high) == (1600, math.inf)
    low, high = search(lambda _: False, 100)
    assert low == 0.0
    assert high == pytest.approx(0.39, abs=0.01)


def make_round(latencies: list[int], *, unsent: int = 0, faults: int = 0, ended: str = "") -> Round:
    histogram = Histogram()
    histogram.add(latencies)
    latency = LatencySummary.from_histogram(histogram)
    return Round(
        1,
        len(latencies),
        1,
        1,
        Faults(wrong=faults),
        latency,
        latency,
        GeneratorUsage("", 0),
        unsent,
        ended=ended,
    )


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        (make_round([900_000] * 2000), True),
        (make_round([900_000] * 1990 + [5_000_000] * 10), True),  # half a percent beyond the bound
        (make_round([900_000] * 1900 + [5_000_000] * 100), False),
        (make_round([900_000] * 10 + [5_000_000]), False),  # too few for a p99: the maximum counts
        (make_round([900_000] * 2000, unsent=1), True),
        (make_round([900_000] * 2000, unsent=100), False),
        (make_round([900_000] * 2000, faults=1), False),
        (make_round([900_000] * 2000, ended="gone"), False),
        (make_round([]), False),
    ],
)
def test_latency_bound_holds(found: Round, holds: bool) -> None:
    assert LatencyBound(1000).holds(found) == holds
