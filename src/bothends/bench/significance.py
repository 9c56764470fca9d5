"""Two results: better, worse, or no difference that the spread of their rounds would allow to see.

Pure. Three figures are compared: requests a second, p99 (corrected where there is a schedule), and faults.
A difference counts if it is one that chance would hardly give, and large enough to matter:

1. With four rounds or more on each side, by the exact Mann-Whitney test at one in twenty, two-sided: it asks
   only in which order the rounds of both lie, and no bell curve of them. Three rounds against three can't
   differ so clearly, whatever they show.
2. With fewer, by the ranges: they must not overlap, and the medians must differ by `FEW_ROUNDS_MIN_CHANGE`.
3. Below `MIN_CHANGE` it is a tie, however sure: copies of one server differ as much from run to run.
"""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of one entry, before and after: medians, and what can be said."""

    name: str
    load: str
    figure: str
    before: float
    after: float
    verdict: Verdict

    @property
    def change(self) -> float | None:
        """`after` as a ratio of `before`; None where that was 0."""
        return self.after / self.before if self.before else None


def compare(before: Document, after: Document) -> list[Comparison]:
    """Every entry that both have, by name and load; a single one of each is taken for the same.

    Raises CallerError if they have none in common.
    """
    pairs = _pairs(before, after)
    if not pairs:
        raise UsageError("the two results have no target under the same load in common")
    found: list[Comparison] = []
    for one, other in pairs:
        for figure, of, upwards in (("requests/s", _rate, True), ("p99 us", _p99, False)):
            values = [[v for each in entry.rounds if (v := of(each)) is not None] for entry in (one, other)]
            if all(values) and not (figure == "requests/s" and one.load.rate is not None):
                medians = [statistics.median(each) for each in values]
                said = verdict(values[0], values[1], higher_is_better=upwards)
                found.append(Comparison(other.name, other.load.title, figure, medians[0], medians[1], said))
        share, now = _faults_per_million(one), _faults_per_million(other)
        if share or now:
            said = _fault_verdict(share, now)
            found.append(Comparison(other.name, other.load.title, "faults a million", share, now, said))
    return found


def verdict(before: Sequence[float], after: Sequence[float], *, higher_is_better: bool) -> Verdict:
    """What two sets of rounds say; `upwards`: more is better."""
    ours, theirs = statistics.median(after), statistics.median(before)
    if not is_significant(before, after):
        return "no difference"
    return "better" if (ours > theirs) == higher_is_better else "worse"


def is_significant(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether it is a difference: see above."""
    one, other = statistics.median(before), statistics.median(after)
    apart = abs(other - one) / one if one else float(other != one)
    if len(before) >= 4 and len(after) >= 4:
        return apart > MIN_CHANGE and mann_whitney_p_value(before, after) <= SIGNIFICANCE_LEVEL
    overlap = min(before) <= max(after) and min(after) <= max(before)
    return apart > FEW_ROUNDS_MIN_CHANGE and not overlap


def mann_whitney_p_value(one: Sequence[float], other: Sequence[float]) -> float:
    """How likely the order of both is, or one as lopsided, if there is no difference: Mann-Whitney, exact.

    Ties between the two count as half.
    """
    wins = sum((a > b) + (a == b) / 2 for a in one for b in other)
    size = len(one) * len(other)
    least = min(wins, size - wins)
    ways = [_count_orders(len(one), len(other), u) for u in range(size + 1)]
    return min(1.0, 2 * sum(ways[: int(least) + 1]) / sum(ways))


@cache
def _count_orders(one: int, other: int, wins: int) -> int:
    """In how many orders of so many and so many the first wins that many of the pairs."""
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


def _p99(each: Round) -> float | None:
    return each.latency.percentiles_us.get("p99")


def _faults_per_million(entry: BenchEntry) -> float:
    """Of a million requests; a round that ended early counts as one more."""
    requests = sum(each.latency.n for each in entry.rounds) + entry.faults.total
    total = entry.faults.total + sum(bool(each.ended) for each in entry.rounds)
    return total * 1e6 / max(requests, 1)


def _fault_verdict(before: float, after: float) -> Verdict:
    if after > 2 * before:
        return "worse"
    return "better" if before > 2 * after else "no difference"
