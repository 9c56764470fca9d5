"""How a run ended, as values: what every report is made of, and what a resumed batch reads back."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bothends.check.case import Verdict
from bothends.check.transcript import TranscriptEntry

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """How one case ended. Texts are escaped where they quote the program.

    `expected`, `happened` and `transcript` are empty for PASS; `detail` is the reason of a SKIP, or what an
    INFO or NON-STRICT has to say; `complaint` is the end of the program's standard error.
    """

    case: str
    verdict: Verdict
    seconds: float = 0.0
    attempts: int = 1
    detail: str = ""
    expected: str = ""
    happened: str = ""
    mistake: str = ""
    complaint: str = ""
    transcript: tuple[TranscriptEntry, ...] = ()
    points: float = 0.0
    most: float = 1.0
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """One run: a program, a contract, and how each case ended, in the suite's order."""

    program: str
    contract: str
    suite: str
    outcomes: tuple[CaseOutcome, ...]
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    version: int = field(default=VERSION)

    @property
    def failed(self) -> bool:
        """Whether something is wrong."""
        return any(each.verdict is Verdict.FAIL for each in self.outcomes)

    @property
    def counts(self) -> Counter[Verdict]:
        """How many cases ended how."""
        return Counter(each.verdict for each in self.outcomes)

    @property
    def points(self) -> float:
        """Marks that were earned."""
        return sum(each.points for each in self.outcomes)

    @property
    def most(self) -> float:
        """Marks that could be earned: of the cases that were asked."""
        return sum(each.most for each in self.outcomes)

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
        counts = {verdict.value: self.counts[verdict] for verdict in Verdict}
        return asdict(self) | {"counts": counts, "points": self.points, "most": self.most}


def from_object(value: dict[str, Any]) -> SuiteResult:
    """What `as_object` gave, read back."""
    outcomes = tuple(
        CaseOutcome(
            **{
                **each,
                "verdict": Verdict(each["verdict"]),
                "transcript": tuple(TranscriptEntry(**entry) for entry in each["transcript"]),
            }
        )
        for each in value["outcomes"]
    )
    kept = {name: value[name] for name in ("program", "contract", "suite", "seconds", "version")}
    return SuiteResult(outcomes=outcomes, notes=tuple(value["notes"]), **kept)
