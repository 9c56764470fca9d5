"""Comparison of two results: significance, thresholds and matching of entries."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.bench.histogram import Histogram
from bothends.bench.results import BenchEntry, Document, Faults, GeneratorUsage, LatencySummary, Load, Round
from bothends.bench.significance import (
    MAX_EXACT_ROUNDS,
    MIN_CHANGE,
    SIGNIFICANCE_LEVEL,
    compare,
    mann_whitney_p_value,
    verdict,
)
from bothends.errors import UsageError

RATES = st.lists(st.floats(1, 1e6), min_size=1, max_size=8)


def make_round(per_s: float, p99_us: int = 100, faults: Faults | None = None) -> Round:
    histogram = Histogram()
    histogram.add([p99_us * 1000] * 1000)
    latency = LatencySummary.from_histogram(histogram)
    return Round(1.0, 1000, per_s, 0, faults or Faults(), latency, None, GeneratorUsage("test", 0.5))


def document(
    *rates: float, name: str = "it", faults: Faults | None = None, due: float | None = None
) -> Document:
    load = Load("echo", "tcp", rate=due)
    entry = BenchEntry(name, "tcp://here:1", load, [make_round(rate, faults=faults) for rate in rates])
    return Document(1, "now", "bench", {}, [entry])


def verdict_of(before: list[float], after: list[float]) -> str:
    return verdict(before, after, higher_is_better=True)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([100, 101, 102, 103, 104], [120, 121, 122, 123, 124], "better"),
        ([100, 101, 102, 103, 104], [80, 81, 82, 83, 84], "worse"),
        ([100, 101, 102, 103, 104], [103, 104, 105, 106, 107], "no difference"),  # significant, but too small
        ([80, 100, 120, 140, 160], [90, 110, 130, 150, 170], "no difference"),  # within the spread
        ([80, 100, 120, 140, 160], [165, 170, 175, 180, 185], "better"),
        ([100, 100, 100, 100], [100, 100, 100, 100], "no difference"),
        ([100], [120], "better"),  # one round each: a change of more than a tenth
        ([100], [109], "no difference"),
        ([100, 130, 101], [121, 122, 140], "no difference"),  # few rounds, and the ranges overlap
        ([0, 0, 0, 0], [5, 5, 5, 5], "better"),
    ],
)
def test_verdicts(before: list[float], after: list[float], expected: str) -> None:
    assert verdict_of(before, after) == expected


@given(RATES, RATES)
def test_verdict_is_antisymmetric(before: list[float], after: list[float]) -> None:
    # The minimum change is a share of the value before, so only one direction may exceed it.
    opposite = {"better": "worse", "worse": "better", "no difference": "no difference"}
    one, other = verdict_of(before, after), verdict_of(after, before)
    assert other in (opposite[one], "no difference") or one == "no difference"
    assert verdict(before, after, higher_is_better=False) == opposite[one]


@given(RATES)
def test_verdict_small_change_is_no_difference(rates: list[float]) -> None:
    assert verdict_of(rates, rates) == "no difference"
    assert verdict_of(rates, [rate * (1 + MIN_CHANGE / 2) for rate in rates]) == "no difference"


@pytest.mark.parametrize(("one", "other"), [(2, 3), (3, 3), (4, 2)])
def test_mann_whitney_p_value_matches_enumeration(one: int, other: int) -> None:
    ranks = range(one + other)

    def wins(order: tuple[int, ...]) -> int:
        return sum(a > b for a in order[:one] for b in order[one:])

    orders = list(permutations(ranks))
    for order in orders[::7]:
        smaller_u = min(wins(order), one * other - wins(order))
        share = sum(wins(each) <= smaller_u for each in orders) / len(orders)
        assert mann_whitney_p_value(order[:one], order[one:]) == pytest.approx(min(1, 2 * share))


def orders_by_wins(one: int, other: int) -> list[int]:
    """Return how many orders of `one` and `other` values have each number of wins: a Gaussian binomial."""
    counts = [1] + [0] * (one * other)
    for k in range(1, one + 1):
        for wins in range(one * other, other + k - 1, -1):
            counts[wins] -= counts[wins - other - k]
        for wins in range(k, one * other + 1):
            counts[wins] += counts[wins - k]
    assert sum(counts) == math.comb(one + other, one)
    return counts


@pytest.mark.parametrize(("one", "other"), [(8, 21), (21, 8), (21, 21), (30, 25)])
def test_mann_whitney_p_value_of_many_rounds_is_near_the_exact_one(one: int, other: int) -> None:
    assert max(one, other) > MAX_EXACT_ROUNDS
    counts = orders_by_wins(one, other)
    for wins in range(one * other // 2 + 1):
        exact = min(1.0, 2 * sum(counts[: wins + 1]) / sum(counts))
        won_all, rest = divmod(wins, other)
        values = [other + 0.5] * won_all + [rest - 0.5] + [-0.5] * (one - won_all - 1)
        found = mann_whitney_p_value(values, range(other))
        assert found == mann_whitney_p_value(range(other), values) == pytest.approx(exact, abs=0.008)
        assert found > SIGNIFICANCE_LEVEL or exact <= SIGNIFICANCE_LEVEL


@given(
    st.lists(st.integers(0, 5), min_size=21, max_size=30),
    st.lists(st.integers(0, 5), min_size=4, max_size=30),
)
def test_mann_whitney_p_value_of_many_rounds_with_ties_is_a_probability(
    one: list[int], other: list[int]
) -> None:
    assert 0 < mann_whitney_p_value(one, other) <= 1
    assert mann_whitney_p_value(one, one) == 1


def test_compare_documents() -> None:
    found = compare(document(100, 101, 102, 103), document(50, 51, 52, 53))
    assert [(each.figure, each.verdict) for each in found] == [
        ("requests/s", "worse"),
        ("p99 us", "no difference"),
    ]
    assert found[0].change == pytest.approx(51.5 / 101.5)


def test_compare_more_faults_is_worse() -> None:
    found = compare(document(100), document(100, faults=Faults(wrong=1)))
    assert [each.verdict for each in found] == ["no difference", "no difference", "worse"]
    assert compare(document(100, faults=Faults(lost=1)), document(100))[-1].verdict == "better"


def test_compare_open_loop_omits_rate() -> None:
    assert [each.figure for each in compare(document(9, due=10), document(5, due=10))] == ["p99 us"]


def test_compare_matches_entries_by_name_and_load() -> None:
    before, after = document(1, name="a"), document(1, name="b")
    both = Document(1, "", "", {}, [*before.entries, *after.entries])
    assert {each.name for each in compare(both, after)} == {"b"}
    other = Document(1, "", "", {}, document(1, name="c").entries * 2)
    with pytest.raises(UsageError, match="in common"):
        compare(both, other)
