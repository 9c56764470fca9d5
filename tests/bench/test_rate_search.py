"""The search for the rate that a target carries, on targets that are made up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.bench.histogram import Histogram
from bothends.bench.rate_search import CLOSE, Bound, search
from bothends.bench.results import Faults, Latency, Own, Round


@given(st.floats(2, 1e7), st.floats(1, 1e6))
def test_the_edge_is_found_from_wherever_it_begins(edge: float, start: float) -> None:
    low, high = search(lambda rate: rate <= edge, start, most=100)
    assert low <= edge < high <= low * CLOSE


def test_a_target_that_carries_everything_and_one_that_carries_nothing() -> None:
    low, high = search(lambda _: True, 100, most=5)
    assert (low, high) == (1600, math.inf)
    low, high = search(lambda _: False, 100)
    assert low == 0.0
    assert high == pytest.approx(0.39, abs=0.01)


def a_round(latencies: list[int], *, unsent: int = 0, faults: int = 0, ended: str = "") -> Round:
    histogram = Histogram()
    histogram.add(latencies)
    found = Latency.of(histogram)
    return Round(1, len(latencies), 1, 1, Faults(wrong=faults), found, found, Own("", 0), unsent, ended=ended)


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        (a_round([900_000] * 2000), True),
        (a_round([900_000] * 1990 + [5_000_000] * 10), True),  # half a percent
        (a_round([900_000] * 1900 + [5_000_000] * 100), False),
        (a_round([900_000] * 10 + [5_000_000]), False),  # too few for a p99: the largest counts
        (a_round([900_000] * 2000, unsent=1), True),
        (a_round([900_000] * 2000, unsent=100), False),
        (a_round([900_000] * 2000, faults=1), False),
        (a_round([900_000] * 2000, ended="gone"), False),
        (a_round([]), False),
    ],
)
def test_the_bound(found: Round, holds: bool) -> None:
    assert Bound(1000).holds(found) == holds
