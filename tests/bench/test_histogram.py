"""Histograms: HdrHistogram's layout, lossless merging, and percentiles only with enough values."""

from __future__ import annotations

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from bothends.bench import histogram
from bothends.bench.histogram import COUNTS_LENGTH, DIGITS, HIGHEST, LOWEST, Histogram, merge_histograms

VALUES = st.lists(st.integers(0, HIGHEST), max_size=300)


def histogram_of(values: list[int]) -> Histogram:
    histogram = Histogram()
    histogram.add(values)
    return histogram


def hdr_histogram_of(values: list[int]) -> HdrHistogram:
    reference = HdrHistogram(LOWEST, HIGHEST, DIGITS)
    for value in values:
        assert reference.record_value(value)
    return reference


@given(VALUES)
def test_counts_match_hdr_histogram(values: list[int]) -> None:
    found, reference = histogram_of(values), hdr_histogram_of(values)
    assert reference.counts_len == COUNTS_LENGTH
    assert found.counts.tolist() == [reference.get_count_at_index(index) for index in range(COUNTS_LENGTH)]


@given(st.lists(VALUES, max_size=4))
def test_merge_equals_counting_all_values(several: list[list[int]]) -> None:
    merged = merge_histograms(histogram_of(each) for each in several)
    assert (merged.counts == histogram_of([value for each in several for value in each]).counts).all()


@given(VALUES)
def test_encode_decode_round_trip(values: list[int]) -> None:
    found = histogram_of(values)
    assert (Histogram.decode(found.encode()).counts == found.counts).all()
    assert HdrHistogram.decode(found.encode()).get_total_count() == len(values)


@given(st.lists(st.integers(0, HIGHEST), min_size=20, max_size=500), st.floats(0.1, 99.9))
def test_percentile_has_three_digit_precision(values: list[int], percent: float) -> None:
    found = histogram_of(values).percentile(percent)
    if len(values) * (100 - percent) / 100 < 10:
        assert found is None
        return
    assert found is not None
    exact = int(np.quantile(values, percent / 100, method="inverted_cdf"))
    assert exact <= found <= exact * 1.001 + 1


@given(st.lists(st.integers(0, HIGHEST), min_size=1, max_size=300))
def test_maximum_and_mean(values: list[int]) -> None:
    found = histogram_of(values)
    assert max(values) <= found.maximum <= max(values) * 1.001 + 1
    assert found.mean == pytest.approx(sum(values) / len(values), rel=0.001, abs=1)


@pytest.mark.parametrize(
    ("n", "supported"), [(19, []), (20, ["p50"]), (100, ["p50", "p90"]), (999, ["p50", "p90"])]
)
def test_unsupported_percentiles_are_omitted(n: int, supported: list[str]) -> None:
    assert list(histogram_of([5] * n).percentiles()) == supported


def test_ten_thousand_values_support_all_percentiles() -> None:
    assert list(histogram_of([5] * 10_000).percentiles()) == ["p50", "p90", "p99", "p99.9"]


def test_values_are_clamped_to_range() -> None:
    assert histogram_of([HIGHEST * 5]).maximum == pytest.approx(HIGHEST, rel=0.001)
    assert histogram_of([-5]).maximum == 0
    assert Histogram().mean == 0.0
    assert Histogram().maximum == 0


@pytest.mark.parametrize(
    "text", ["", "HISTFAAAA", "not base64 at all", HdrHistogram(1, 1000, 2).encode().decode()]
)
def test_decode_foreign_histogram_raises(text: str) -> None:
    with pytest.raises(ValueError, match="HDR histogram"):
        Histogram.decode(text)


def test_counts_index_at_bucket_edges() -> None:
    edges = [value + offset for value in (1 << bit for bit in range(1, 41)) for offset in (-1, 0, 1)]
    found = histogram.counts_index(np.array(edges, np.int64))
    reference = HdrHistogram(LOWEST, HIGHEST, DIGITS)
    assert found.tolist() == [reference.get_counts_array_index(edge) for edge in edges]
