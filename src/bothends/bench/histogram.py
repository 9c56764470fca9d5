"""Latencies, in the layout of an HDR histogram: three significant digits from a nanosecond to an hour.

Pure. Counts are an array in the order of HdrHistogram's own (its format's "counts array index"), so that
the generator in C counts by the same few shifts, and its array is taken as it is. Histograms are merged,
percentiles never averaged.

Source: HdrHistogram.java, by Gil Tene; the V2 encoding is the library's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

LOWEST: Final = 1
HIGHEST: Final = 3600 * 1_000_000_000
"""Nanoseconds: an hour. What takes longer counts as an hour."""

DIGITS: Final = 3
SUB_BUCKET_HALF_COUNT: Final = 1024
"""Places in a bucket: 2 * 10**DIGITS, rounded up to a power of two, halved."""

COUNTS_LENGTH: Final = 33 * SUB_BUCKET_HALF_COUNT
"""Length of the counts array for HIGHEST; a test holds it to the library's."""

MIN_VALUES_BEYOND: Final = 10
"""A percentile is told only if at least so many values lie beyond it: of fewer, chance decides."""

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)


class Histogram:
    """How often each latency was met."""

    __slots__ = ("counts",)

    def __init__(self, counts: NDArray[np.int64] | None = None) -> None:
        self.counts = np.zeros(COUNTS_LENGTH, np.int64) if counts is None else counts

    def add(self, nanoseconds: Sequence[int] | NDArray[np.int64]) -> None:
        """Count these latencies; negative ones as 0."""
        if len(nanoseconds):
            self.counts += np.bincount(
                counts_index(np.asarray(nanoseconds, np.int64)), minlength=COUNTS_LENGTH
            )

    @property
    def n(self) -> int:
        """How many latencies were counted."""
        return int(self.counts.sum())

    @property
    def maximum(self) -> int:
        """The largest, in nanoseconds; 0 where there is none."""
        filled = np.flatnonzero(self.counts)
        return int(_highest_equivalent(int(filled[-1]))) if len(filled) else 0

    @property
    def mean(self) -> float:
        """The mean in nanoseconds, from the middle of each place; 0.0 where there is none."""
        filled = np.flatnonzero(self.counts)
        if not len(filled):
            return 0.0
        middles = np.array(
            [(_lowest_equivalent(int(place)) + _highest_equivalent(int(place))) / 2 for place in filled]
        )
        return float(np.average(middles, weights=self.counts[filled]))

    def percentile(self, percent: float) -> int | None:
        """The latency in nanoseconds that `percent` of all stay within; None if n can't carry it."""
        n = self.n
        if not supports_percentile(n, percent):
            return None
        wanted = max(1, math.ceil(n * percent / 100 - 1e-9))
        return int(_highest_equivalent(int(np.searchsorted(np.cumsum(self.counts), wanted))))

    def percentiles(self) -> dict[str, int]:
        """Those of `PERCENTILES` that n carries: `{"p50": ..., "p99.9": ...}`, in nanoseconds."""
        found = ((f"p{percent:g}", self.percentile(percent)) for percent in PERCENTILES)
        return {name: value for name, value in found if value is not None}

    def curve(self, points: Iterable[float]) -> list[tuple[float, int]]:
        """(percent, nanoseconds) for a plot, up to the last percent that n carries."""
        found = ((percent, self.percentile(percent)) for percent in points)
        return [(percent, value) for percent, value in found if value is not None]

    def encode(self) -> str:
        """HdrHistogram's V2 encoding, compressed, in base64."""
        return str(self._to_hdr_histogram().encode().decode("ascii"))

    @classmethod
    def decode(cls, text: str) -> Histogram:
        """The inverse of `encoded`. Raises ValueError for what is none, or of another layout."""
        try:
            found: Any = HdrHistogram.decode(text)
        except Exception as error:  # the library lets zlib's, base64's and its own errors through
            raise ValueError(f"not an HDR histogram: {error}") from error
        if (found.sub_bucket_half_count, found.unit_magnitude, found.counts_len) != (
            SUB_BUCKET_HALF_COUNT,
            0,
            COUNTS_LENGTH,
        ):
            raise ValueError("an HDR histogram of another range or precision")
        histogram = cls()
        for place in range(COUNTS_LENGTH):
            histogram.counts[place] = found.get_count_at_index(place)
        return histogram

    def _to_hdr_histogram(self) -> Any:
        made = HdrHistogram(LOWEST, HIGHEST, DIGITS)
        filled = np.flatnonzero(self.counts)
        for place in filled:
            made.counts[int(place)] = int(self.counts[place])
        if len(filled):
            made.set_internal_tacking_values(int(filled[0]), int(filled[-1]), self.n)
        return made


def merge_histograms(histograms: Iterable[Histogram]) -> Histogram:
    """All of them in one."""
    total = Histogram()
    for each in histograms:
        total.counts += each.counts
    return total


def supports_percentile(n: int, percent: float) -> bool:
    """Whether `n` values say something about this percentile: see `MIN_VALUES_BEYOND`."""
    return n * (100 - percent) / 100 >= MIN_VALUES_BEYOND - 1e-9


def counts_index(nanoseconds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where in the counts array each latency belongs."""
    values = np.clip(nanoseconds, 0, HIGHEST)
    # The number of the bucket is how many bits the value has beyond those of the first: frexp's exponent is
    # the bit length, exactly, as long as the value fits a double's 53 bits.
    bits = np.frexp((values | (2 * SUB_BUCKET_HALF_COUNT - 1)).astype(np.float64))[1].astype(np.int64)
    bucket = bits - (2 * SUB_BUCKET_HALF_COUNT - 1).bit_length()
    return (bucket + 1) * SUB_BUCKET_HALF_COUNT + (values >> bucket) - SUB_BUCKET_HALF_COUNT


def _lowest_equivalent(index: int) -> int:
    bucket = max(0, index // SUB_BUCKET_HALF_COUNT - 1)
    return (index - bucket * SUB_BUCKET_HALF_COUNT) << bucket


def _highest_equivalent(index: int) -> int:
    return _lowest_equivalent(index + 1) - 1 if index + 1 < COUNTS_LENGTH else HIGHEST
