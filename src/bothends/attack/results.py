"""The outcomes of attacks as values; and the same as a result of `bothends check`, for its reports. Pure."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from bothends.attack.health import Health
from bothends.attack.honest import Sample
from bothends.check.case import Verdict
from bothends.check.results import CaseOutcome, SuiteResult

VERSION: Final = 1


class Hold(enum.StrEnum):
    """The verdict on a server under one attack, from best to worst."""

    HELD = "held"
    SKIPPED = "skipped"
    DEGRADED = "degraded"
    FAILED = "failed"


_CHECK_VERDICTS: Final = {
    Hold.HELD: Verdict.PASS,
    Hold.SKIPPED: Verdict.SKIP,
    Hold.DEGRADED: Verdict.NON_STRICT,
    Hold.FAILED: Verdict.FAIL,
}


@dataclass(frozen=True, slots=True)
class HonestFigures:
    """What the honest client got in one phase: numbers of requests by outcome, and latencies in seconds.

    Latencies are those of requests that were answered; `late` is by how much the client itself was late, at
    the 99th percentile. `unserved_share` is that of new connections or of the one that is kept, the higher
    one; `unserved_time`: the share of time that such requests took, because each counts once however long.
    All are 0 without requests.
    """

    right: int = 0
    wrong: int = 0
    refused: int = 0
    lost: int = 0
    unanswered: int = 0
    p50: float = 0.0
    p99: float = 0.0
    late: float = 0.0
    unserved_share: float = 0.0
    unserved_time: float = 0.0

    @property
    def total(self) -> int:
        """The number of requests."""
        return self.right + self.unserved + self.wrong

    @property
    def unserved(self) -> int:
        """The number of requests without an answer, for any reason."""
        return self.refused + self.lost + self.unanswered

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> HonestFigures:
        """Return the figures of samples."""
        counts = Counter(each.outcome for each in samples)
        answered = sorted(each.seconds for each in samples if each.outcome == "right")
        late = sorted(each.late for each in samples)
        return cls(
            **{name: counts[name] for name in ("right", "wrong", "refused", "lost", "unanswered")},
            p50=_percentile(answered, 0.50),
            p99=_percentile(answered, 0.99),
            late=_percentile(late, 0.99),
            unserved_time=max(_unserved_time(samples, kept=kept) for kept in (False, True)),
            unserved_share=max(_unserved_share(samples, kept=kept) for kept in (False, True)),
        )


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """What the server's processes took: before the attack, at most during it, and once idle again.

    `peak_memory` in bytes; `processor`: the share of one processor during the attack; `idle_processor`: the
    same after it, without a client.
    """

    before: Health
    after: Health
    peak_memory: int = 0
    processor: float = 0.0
    idle_processor: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackOutcome:
    """What one attack did. Texts that quote the server are escaped.

    `reason` in one line; `meaning`: what it means for users, empty if held; `mistake`: what such a server
    probably does; `others`: further reasons; `counts` of the attacker; `server` is None if its processes are
    not visible; `ending`: how it ended after SIGTERM, if bothends started it; `stderr_tail`: the end of its
    standard error.
    """

    attack: str
    hold: Hold
    reason: str
    meaning: str = ""
    mistake: str = ""
    others: tuple[str, ...] = ()
    does: str = ""
    quiet: HonestFigures = HonestFigures()
    attacked: HonestFigures = HonestFigures()
    counts: tuple[tuple[str, int], ...] = ()
    server: ServerFigures | None = None
    ending: str = ""
    stderr_tail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackResult:
    """All attacks on one server. `program`: its command or endpoint; `compared`: what a right answer is."""

    program: str
    compared: str
    outcomes: tuple[AttackOutcome, ...]
    seed: int
    seconds: float
    notes: tuple[str, ...] = ()
    version: int = VERSION

    @property
    def failed(self) -> bool:
        """Whether any attack made the server fail."""
        return any(each.hold is Hold.FAILED for each in self.outcomes)

    @property
    def counts(self) -> Counter[Hold]:
        """The number of attacks by verdict."""
        return Counter(each.hold for each in self.outcomes)

    def as_object(self) -> dict[str, Any]:
        """Return the result as an object for JSON."""
        outcomes = [asdict(each) | {"counts": dict(each.counts)} for each in self.outcomes]
        return asdict(self) | {"outcomes": outcomes, "held": {each.value: self.counts[each] for each in Hold}}

    def as_suite_result(self) -> SuiteResult:
        """Return the result in the form of `bothends check`: a case for each attack."""
        outcomes = tuple(map(_as_case, self.outcomes))
        notes = (f"compared: {self.compared}", f"seed {self.seed}", *self.notes)
        return SuiteResult(self.program, "attack", "attack", outcomes, round(self.seconds, 2), notes)


def _as_case(outcome: AttackOutcome) -> CaseOutcome:
    text = "; ".join((outcome.reason, *outcome.others))
    failed = outcome.hold is Hold.FAILED
    detail = f"{outcome.hold}: {text}" if outcome.hold is Hold.DEGRADED else text
    counts = outcome.hold is not Hold.SKIPPED
    return CaseOutcome(
        outcome.attack,
        _CHECK_VERDICTS[outcome.hold],
        round(outcome.seconds, 3),
        detail="" if failed else detail,
        expected="honest clients to be served as before" if failed else "",
        happened=f"{text}. {outcome.meaning}" if failed else "",
        likely_cause=outcome.mistake if failed else "",
        stderr_tail=outcome.stderr_tail if failed else "",
        points=float(counts and not failed),
        max_points=float(counts),
    )


def _unserved_share(samples: Sequence[Sample], *, kept: bool) -> float:
    outcomes = [each.outcome for each in samples if each.kept == kept]
    return sum(each not in ("right", "wrong") for each in outcomes) / len(outcomes) if outcomes else 0.0


def _unserved_time(samples: Sequence[Sample], *, kept: bool) -> float:
    found = [each for each in samples if each.kept == kept]
    if not found:
        return 0.0
    whole = max(each.started + each.seconds for each in found) - min(each.started for each in found)
    unserved = sum(each.seconds for each in found if each.outcome not in ("right", "wrong"))
    return min(1.0, unserved / whole) if whole > 0 else 0.0


def _percentile(values: Sequence[float], share: float) -> float:
    """Return the value at a share of sorted values, the higher of two; 0 without values."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0
