"""Latency histograms in HDR layout: three significant digits from a nanosecond to an hour.

Pure. The counts are an array in HdrHistogram's order (its "counts array index"). The generator in C computes
the same index with a few shifts, so its array is used without conversion. Histograms are merged; percentiles
are never averaged.

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
"""Nanoseconds: an hour. Longer latencies count as an hour."""

DIGITS: Final = 3
SUB_BUCKET_HALF_COUNT: Final = 1024
"""Half the sub-buckets of a bucket: 2 * 10**DIGITS, rounded up to a power of two, halved."""

COUNTS_LENGTH: Final = 33 * SUB_BUCKET_HALF_COUNT
"""Length of the counts array for HIGHEST; a test compares it with the library's."""

MIN_VALUES_BEYOND: Final = 10
"""Minimum number of values beyond a percentile: with fewer the percentile is mostly chance, and omitted."""

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)


class Histogram:
    """Counts of latencies."""

    __slots__ = ("counts",)

    def __init__(self, counts: NDArray[np.int64] | None = None) -> None:
        self.counts = np.zeros(COUNTS_LENGTH, np.int64) if counts is None else counts

    def add(self, nanoseconds: Sequence[int] | NDArray[np.int64]) -> None:
        """Add latencies in nanoseconds; negative ones count as 0."""
        if len(nanoseconds):
            self.counts += np.bincount(
                counts_index(np.asarray(nanoseconds, np.int64)), minlength=COUNTS_LENGTH
            )

    @property
    def n(self) -> int:
        """Number of latencies."""
        return int(self.counts.sum())

    @property
    def maximum(self) -> int:
        """The largest latency in nanoseconds; 0 without any."""
        filled = np.flatnonzero(self.counts)
        return int(_highest_equivalent(int(filled[-1]))) if len(filled) else 0

    @property
    def mean(self) -> float:
        """The mean in nanoseconds, from the middle of each sub-bucket; 0.0 without any latency."""
        filled = np.flatnonzero(self.counts)
        if not len(filled):
            return 0.0
        middles = np.array(
            [(_lowest_equivalent(int(index)) + _highest_equivalent(int(index))) / 2 for index in filled]
        )
        return float(np.average(middles, weights=self.counts[filled]))

    def percentile(self, percent: float) -> int | None:
        """Return a percentile in nanoseconds, or None if there are too few latencies for it."""
        n = self.n
        if not supports_percentile(n, percent):
            return None
        rank = max(1, math.ceil(n * percent / 100 - 1e-9))
        return int(_highest_equivalent(int(np.searchsorted(np.cumsum(self.counts), rank))))

    def percentiles(self) -> dict[str, int]:
        """Return the supported `PERCENTILES` in nanoseconds: `{"p50": ..., "p99.9": ...}`."""
        found = ((f"p{percent:g}", self.percentile(percent)) for percent in PERCENTILES)
        return {name: value for name, value in found if value is not None}

    def curve(self, points: Iterable[float]) -> list[tuple[float, int]]:
        """Return (percent, nanoseconds) for a plot, for the supported percentiles of `points`."""
        found = ((percent, self.percentile(percent)) for percent in points)
        return [(percent, value) for percent, value in found if value is not None]

    def encode(self) -> str:
        """Encode in HdrHistogram's compressed V2 format, in base64."""
        return str(self._to_hdr_histogram().encode().decode("ascii"))

    @classmethod
    def decode(cls, text: str) -> Histogram:
        """Decode the output of `encode`. Raises ValueError if it is malformed or has another layout."""
        try:
            found: Any = HdrHistogram.decode(text)
        except Exception as error:  # the library raises zlib's, base64's and its own exceptions
            raise ValueError(f"not an HDR histogram: {error}") from error
        if (found.sub_bucket_half_count, found.unit_magnitude, found.counts_len) != (
            SUB_BUCKET_HALF_COUNT,
            0,
            COUNTS_LENGTH,
        ):
            raise ValueError("an HDR histogram of another range or precision")
        histogram = cls()
        for index in range(COUNTS_LENGTH):
            histogram.counts[index] = found.get_count_at_index(index)
        return histogram

    def _to_hdr_histogram(self) -> Any:
        encoder = HdrHistogram(LOWEST, HIGHEST, DIGITS)
        filled = np.flatnonzero(self.counts)
        for index in filled:
            encoder.counts[int(index)] = int(self.counts[index])
        if len(filled):
            encoder.set_internal_tacking_values(int(filled[0]), int(filled[-1]), self.n)
        return encoder


def merge_histograms(histograms: Iterable[Histogram]) -> Histogram:
    """Return the sum of several histograms."""
    total = Histogram()
    for each in histograms:
        total.counts += each.counts
    return total


def supports_percentile(n: int, percent: float) -> bool:
    """Whether `n` values are enough for a percentile; see `MIN_VALUES_BEYOND`."""
    return n * (100 - percent) / 100 >= MIN_VALUES_BEYOND - 1e-9


def counts_index(nanoseconds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index of each latency in the counts array."""
    values = np.clip(nanoseconds, 0, HIGHEST)
    # The bucket is the number of bits that the value has beyond those of the first bucket. frexp's exponent
    # is the exact bit length as long as the value fits the 53 bits of a double.
    bits = np.frexp((values | (2 * SUB_BUCKET_HALF_COUNT - 1)).astype(np.float64))[1].astype(np.int64)
    bucket = bits - (2 * SUB_BUCKET_HALF_COUNT - 1).bit_length()
    return (bucket + 1) * SUB_BUCKET_HALF_COUNT + (values >> bucket) - SUB_BUCKET_HALF_COUNT


def _lowest_equivalent(index: int) -> int:
    bucket = max(0, index // SUB_BUCKET_HALF_COUNT - 1)
    return (index - bucket * SUB_BUCKET_HALF_COUNT) << bucket


def _highest_equivalent(index: int) -> int:
    return _lowest_equivalent(index + 1) - 1 if index + 1 < COUNTS_LENGTH else HIGHEST
