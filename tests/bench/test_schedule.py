"""Schedules: ascending times, determined by the seed."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.bench.schedule import CHUNK, SECOND, Arrivals, Schedule, Times
from bothends.errors import UsageError

RATES = st.floats(0.1, 1e7)
KINDS = st.sampled_from(["fixed", "poisson"])


def first(schedule: Schedule, chunks: int = 3) -> Times:
    return np.concatenate(list(islice(schedule.times(), chunks)))


@given(RATES, KINDS, st.integers(0, 2**32))
def test_times_are_monotonic_and_deterministic(rate: float, kind: Arrivals, seed: int) -> None:
    times = first(Schedule(rate, kind, seed))
    assert times[0] >= 0
    assert (np.diff(times) >= 0).all()
    assert (times == first(Schedule(rate, kind, seed))).all()


@given(st.integers(1, 2_000_000))
def test_fixed_times_do_not_drift(rate: int) -> None:
    times = first(Schedule(rate))
    for number in (0, 1, CHUNK - 1, CHUNK, 3 * CHUNK - 1):
        assert abs(int(times[number]) - number * SECOND // rate) <= 1


@given(st.floats(10, 1e6), st.integers(0, 1000))
def test_poisson_times_have_exponential_gaps(rate: float, seed: int) -> None:
    gaps = np.diff(first(Schedule(rate, "poisson", seed), 10)) * rate / SECOND
    assert gaps.mean() == pytest.approx(1, rel=0.05)
    assert gaps.std() == pytest.approx(1, rel=0.1)  # an exponential distribution has equal mean and deviation


@given(RATES, KINDS, st.integers(1, 7))
def test_step_partitions_schedule(rate: float, kind: Arrivals, count: int) -> None:
    whole = first(Schedule(rate, kind))
    parts = [first(Schedule(rate, kind, first=index, step=count)) for index in range(count)]
    for index, part in enumerate(parts):
        assert (part == whole[index::count]).all()
    assert sum(map(len, parts)) == len(whole)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf"), 1e10])
def test_invalid_rate_raises(rate: float) -> None:
    with pytest.raises(UsageError, match="the rate must be"):
        Schedule(rate)
