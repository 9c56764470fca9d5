"""Latencies: the layout is HdrHistogram's, nothing is lost by merging, and no percentile is made up."""

from __future__ import annotations

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from bothends.bench import histogram
from bothends.bench.histogram import DIGITS, HIGHEST, LOWEST, PLACES, Histogram, merged

VALUES = st.lists(st.integers(0, HIGHEST), max_size=300)


def of(values: list[int]) -> Histogram:
    made = Histogram()
    made.add(values)
    return made


def library(values: list[int]) -> HdrHistogram:
    made = HdrHistogram(LOWEST, HIGHEST, DIGITS)
    for value in values:
        assert made.record_value(value)
    return made


@given(VALUES)
def test_every_value_is_counted_where_the_library_counts_it(values: list[int]) -> None:
    ours, theirs = of(values), library(values)
    assert theirs.counts_len == PLACES
    assert ours.counts.tolist() == [theirs.get_count_at_index(place) for place in range(PLACES)]


@given(st.lists(VALUES, max_size=4))
def test_merging_is_counting_all_at_once(several: list[list[int]]) -> None:
    together = merged(of(each) for each in several)
    assert (together.counts == of([value for each in several for value in each]).counts).all()


@given(VALUES)
def test_what_is_written_is_read_back(values: list[int]) -> None:
    ours = of(values)
    assert (Histogram.decoded(ours.encoded()).counts == ours.counts).all()
    assert HdrHistogram.decode(ours.encoded()).get_total_count() == len(values)


@given(st.lists(st.integers(0, HIGHEST), min_size=20, max_size=500), st.floats(0.1, 99.9))
def test_a_percentile_is_within_three_digits_of_the_exact_one(values: list[int], percent: float) -> None:
    found = of(values).percentile(percent)
    if len(values) * (100 - percent) / 100 < 10:
        assert found is None
        return
    assert found is not None
    exact = int(np.quantile(values, percent / 100, method="inverted_cdf"))
    assert exact <= found <= exact * 1.001 + 1


@given(st.lists(st.integers(0, HIGHEST), min_size=1, max_size=300))
def test_the_largest_and_the_mean(values: list[int]) -> None:
    ours = of(values)
    assert max(values) <= ours.maximum <= max(values) * 1.001 + 1
    assert ours.mean == pytest.approx(sum(values) / len(values), rel=0.001, abs=1)


@pytest.mark.parametrize(
    ("n", "carried"), [(19, []), (20, ["p50"]), (100, ["p50", "p90"]), (999, ["p50", "p90"])]
)
def test_a_percentile_that_n_cannot_carry_is_left_out(n: int, carried: list[str]) -> None:
    assert list(of([5] * n).percentiles()) == carried


def test_ten_thousand_carry_all_of_them() -> None:
    assert list(of([5] * 10_000).percentiles()) == ["p50", "p90", "p99", "p99.9"]


def test_what_takes_longer_than_an_hour_counts_as_an_hour_and_nothing_as_negative() -> None:
    assert of([HIGHEST * 5]).maximum == pytest.approx(HIGHEST, rel=0.001)
    assert of([-5]).maximum == 0
    assert Histogram().mean == 0.0
    assert Histogram().maximum == 0


@pytest.mark.parametrize(
    "text", ["", "HISTFAAAA", "not base64 at all", HdrHistogram(1, 1000, 2).encode().decode()]
)
def test_what_is_no_histogram_of_ours(text: str) -> None:
    with pytest.raises(ValueError, match="HDR histogram"):
        Histogram.decoded(text)


def test_places_are_exact_at_the_edges_of_buckets() -> None:
    edges = [value + by for value in (1 << bit for bit in range(1, 41)) for by in (-1, 0, 1)]
    found = histogram.places(np.array(edges, np.int64))
    theirs = HdrHistogram(LOWEST, HIGHEST, DIGITS)
    assert found.tolist() == [theirs.get_counts_array_index(edge) for edge in edges]
