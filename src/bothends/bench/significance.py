"""Compare two results: better, worse, or no significant difference.

Pure. Three figures are compared: requests per second, p99 (corrected in an open loop), and faults. A
difference counts if it is statistically significant and large enough to matter:

1. With four or more rounds on each side, by the two-sided Mann-Whitney test at the 5 % level, which is exact
   up to `MAX_EXACT_ROUNDS`. It depends only on the order of the values and assumes no distribution. Three
   rounds against three can never be significant at this level.
2. With fewer rounds, by the ranges: they must not overlap, and the medians must differ by more than
   `FEW_ROUNDS_MIN_CHANGE`.
3. A change of at most `MIN_CHANGE` is never a difference, because runs of the same server differ as much.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, TypeAlias

from bothends.bench.results import BenchEntry, Document, Round
from bothends.errors import UsageError

Verdict: TypeAlias = Literal["better", "worse", "no difference"]

MIN_CHANGE: Final = 0.05
FEW_ROUNDS_MIN_CHANGE: Final = 0.10
SIGNIFICANCE_LEVEL: Final = 0.05

MAX_EXACT_ROUNDS: Final = 20
"""With more rounds on a side, the p-value is that of the normal approximation, because the time for the exact
one grows with the fourth power of the rounds. It is good for more than eight (Mann and Whitney, 1947)."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of one entry: the medians before and after, and the verdict."""

    name: str
    load: str
    figure: str
    before: float
    after: float
    verdict: Verdict

    @property
    def change(self) -> float | None:
        """The ratio of `after` to `before`; None if `before` is 0 or almost 0."""
        ratio = self.after / self.before if self.before else math.inf
        return ratio if math.isfinite(ratio) else None


def compare(before: Document, after: Document) -> list[Comparison]:
    """Compare the entries with the same name and load; two single entries are always compared.

    Raises UsageError if the documents have no entry in common.
    """
    pairs = _pairs(before, after)
    if not pairs:
        raise UsageError("the two results have no target under the same load in common")
    comparisons: list[Comparison] = []
    for one, other in pairs:
        name, load = other.name, other.load.title
        for figure, of, higher_is_better in _FIGURES:
            values = [[v for each in entry.rounds if (v := of(each)) is not None] for entry in (one, other)]
            if all(values) and not (figure == "requests/s" and one.load.rate is not None):
                medians = [statistics.median(each) for each in values]
                result = verdict(values[0], values[1], higher_is_better=higher_is_better)
                comparisons.append(Comparison(name, load, figure, medians[0], medians[1], result))
        old_faults, new_faults = _faults_per_million(one), _faults_per_million(other)
        if old_faults or new_faults:
            result = _fault_verdict(old_faults, new_faults)
            comparisons.append(Comparison(name, load, "faults/million", old_faults, new_faults, result))
    return comparisons


def verdict(before: Sequence[float], after: Sequence[float], *, higher_is_better: bool) -> Verdict:
    """Compare the values of two sets of rounds."""
    if not is_significant(before, after):
        return "no difference"
    increased = statistics.median(after) > statistics.median(before)
    return "better" if increased == higher_is_better else "worse"


def is_significant(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether two sets of values differ; see the module's docstring."""
    one, other = statistics.median(before), statistics.median(after)
    change = abs(other - one) / one if one else float(other != one)
    if len(before) >= 4 and len(after) >= 4:
        return change > MIN_CHANGE and mann_whitney_p_value(before, after) <= SIGNIFICANCE_LEVEL
    overlap = min(before) <= max(after) and min(after) <= max(before)
    return change > FEW_ROUNDS_MIN_CHANGE and not overlap


def mann_whitney_p_value(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the two-sided p-value of the Mann-Whitney U test. Ties count as half.

    Exact up to `MAX_EXACT_ROUNDS` values on each side, else by the normal approximation with a continuity
    correction, without one for ties, which only makes the test stricter.
    """
    wins = sum((a > b) + (a == b) / 2 for a in one for b in other)
    size = len(one) * len(other)
    smaller_u = min(wins, size - wins)
    if max(len(one), len(other)) > MAX_EXACT_ROUNDS:
        deviation = math.sqrt(size * (len(one) + len(other) + 1) / 12)
        return min(1.0, math.erfc(max(0.0, size / 2 - smaller_u - 0.5) / deviation / math.sqrt(2)))
    counts = [_count_orders(len(one), len(other), u) for u in range(size + 1)]
    return min(1.0, 2 * sum(counts[: int(smaller_u) + 1]) / sum(counts))


@cache
def _count_orders(one: int, other: int, wins: int) -> int:
    """Count the orderings of `one` and `other` values in which the first wins exactly `wins` pairs."""
    if wins < 0:
        return 0
    if one == 0 or other == 0:
        return int(wins == 0)
    return _count_orders(one - 1, other, wins - other) + _count_orders(one, other - 1, wins)


def _pairs(before: Document, after: Document) -> list[tuple[BenchEntry, BenchEntry]]:
    ones = [each for each in before.entries if each.rounds]
    others = [each for each in after.entries if each.rounds]
    if len(ones) == len(others) == 1:
        return [(ones[0], others[0])]
    known = {(each.name, each.load.workload, each.load.title): each for each in ones}
    keys = ((each.name, each.load.workload, each.load.title) for each in others)
    return [(known[key], each) for key, each in zip(keys, others, strict=True) if key in known]


def _rate(each: Round) -> float | None:
    return each.per_s or None


def _megabytes(each: Round) -> float | None:
    return each.bulk.bytes_per_s / 1e6 if each.bulk is not None else None


def _p99(each: Round) -> float | None:
    return each.latency.percentiles_us.get("p99")


_FIGURES: Final = (("requests/s", _rate, True), ("MB/s", _megabytes, True), ("p99 us", _p99, False))


def _faults_per_million(entry: BenchEntry) -> float:
    """Return the faults per million requests; a round that ended early counts as one more."""
    requests = sum(each.latency.n for each in entry.rounds) + entry.faults.total
    total = entry.faults.total + sum(bool(each.ended) for each in entry.rounds)
    return total * 1e6 / max(requests, 1)


def _fault_verdict(before: float, after: float) -> Verdict:
    if after > 2 * before:
        return "worse"
    return "better" if before > 2 * after else "no difference"
