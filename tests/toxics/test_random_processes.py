"""Random processes: correlated numbers that stay uniform, and a two-state Markov chain."""

from __future__ import annotations

import itertools
import statistics
from random import Random

import pytest

from bothends.toxics.random_processes import CorrelatedUniform, TwoStateMarkov

COUNT = 20_000


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_correlated_uniform_any_correlation_is_uniform(correlation: float) -> None:
    chain = CorrelatedUniform(Random(7), correlation)
    drawn = [chain.draw() for _ in range(COUNT)]
    spread = ((1 + correlation) / (1 - correlation) / COUNT) ** 0.5
    assert min(drawn) >= 0
    assert max(drawn) <= 1
    for share in (0.1, 0.5, 0.9):
        below = sum(each < share for each in drawn) / COUNT
        assert below == pytest.approx(share, abs=5 * spread * (share * (1 - share)) ** 0.5)


def test_correlated_uniform_neighbours_have_requested_correlation() -> None:
    chain = CorrelatedUniform(Random(7), 0.9)
    drawn = [chain.draw() for _ in range(COUNT)]
    # The correlation of the uniform numbers is (6 / pi) asin(c / 2): 0.891 for 0.9.
    assert statistics.correlation(drawn[:-1], drawn[1:]) == pytest.approx(0.891, abs=0.02)


def test_two_state_markov_sojourn_time_matches_probability() -> None:
    states = TwoStateMarkov(Random(7), enter=0.1, leave=0.3)
    seen = [states.step() for _ in range(COUNT)]
    assert sum(seen) / COUNT == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / COUNT * 4) ** 0.5)
    entries = sum(not before and after for before, after in itertools.pairwise(seen))
    assert sum(seen) / entries == pytest.approx(1 / 0.3, rel=0.1)
