"""The outcomes of a run, as values: the input of every report, and the file format of a resumable batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bothends.check.case import Verdict
from bothends.check.transcript import TranscriptEntry

VERSION: Final = 1

# Field -> key of the JSON object, version 1, where they differ.
_OUTCOME_KEYS: Final = {"likely_cause": "mistake", "stderr_tail": "complaint", "max_points": "most"}
_ENTRY_KEYS: Final = {"actor": "who", "event": "what"}


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """The outcome of one case. Texts that quote the program are escaped.

    `expected`, `happened` and `transcript` are empty for PASS; `detail` is the reason of a SKIP, or the text
    of an INFO or NON-STRICT; `stderr_tail` is the end of the program's standard error; `points` of
    `max_points` were earned; `evidence` is the path of a page about a traced run; `stimulus`, `expectation`
    and `why` are those of the case, `why` with the contract's reason for its points.
    """

    case: str
    verdict: Verdict
    seconds: float = 0.0
    attempts: int = 1
    detail: str = ""
    expected: str = ""
    happened: str = ""
    likely_cause: str = ""
    stderr_tail: str = ""
    transcript: tuple[TranscriptEntry, ...] = ()
    points: float = 0.0
    max_points: float = 1.0
    evidence: str = ""
    stimulus: str = ""
    expectation: str = ""
    why: str = ""

    @property
    def summary(self) -> str:
        """What happened, and for a case that was not asked whether that costs its points."""
        text = self.happened if self.verdict is Verdict.FAIL else self.detail or self.happened
        if self.verdict is Verdict.SKIP and self.max_points:
            lost = self.max_points - self.points
            text += f" (costs {lost:g} {'point' if lost == 1 else 'points'})" if lost else " (costs nothing)"
        return text


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """One run of a suite: the program, the contract, and the outcome of each case in the suite's order."""

    program: str
    contract: str
    suite: str
    outcomes: tuple[CaseOutcome, ...]
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    version: int = field(default=VERSION)

    @property
    def failed(self) -> bool:
        """Whether any case failed."""
        return any(each.verdict is Verdict.FAIL for each in self.outcomes)

    @property
    def counts(self) -> Counter[Verdict]:
        """The number of cases by verdict."""
        return Counter(each.verdict for each in self.outcomes)

    @property
    def points(self) -> float:
        """The points earned."""
        return sum(each.points for each in self.outcomes)

    @property
    def max_points(self) -> float:
        """The points that could be earned: also in cases that could not be asked because of a failure."""
        return sum(each.max_points for each in self.outcomes)

    def as_object(self) -> dict[str, Any]:
        """Return the result as an object for JSON."""
        outcomes = [
            _rename(asdict(each), _OUTCOME_KEYS)
            | {"transcript": [_rename(asdict(entry), _ENTRY_KEYS) for entry in each.transcript]}
            for each in self.outcomes
        ]
        counts = {verdict.value: self.counts[verdict] for verdict in Verdict}
        totals = {"counts": counts, "points": self.points, "most": self.max_points}
        return asdict(self) | {"outcomes": outcomes} | totals


def from_object(value: dict[str, Any]) -> SuiteResult:
    """Return the result for an object that `as_object` returned."""
    outcomes = tuple(_outcome_from_object(each) for each in value["outcomes"])
    fields = {name: value[name] for name in ("program", "contract", "suite", "seconds", "version")}
    return SuiteResult(outcomes=outcomes, notes=tuple(value["notes"]), **fields)


def _outcome_from_object(value: dict[str, Any]) -> CaseOutcome:
    entries = (_rename(entry, _reverse(_ENTRY_KEYS)) for entry in value["transcript"])
    converted = {
        "verdict": Verdict(value["verdict"]),
        "transcript": tuple(TranscriptEntry(**entry) for entry in entries),
    }
    return CaseOutcome(**(_rename(value, _reverse(_OUTCOME_KEYS)) | converted))


def _rename(value: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): each for name, each in value.items()}


def _reverse(names: dict[str, str]) -> dict[str, str]:
    return {new: old for old, new in names.items()}
