"""Each mutant fails its own case, and no other than those that its mistake rightly fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bothends.check.case import Verdict
from bothends.check.runner import PATIENCE
from bothends.check.suites.registry import SUITES, cases
from tests.check.judging import failed, judge, judge_client, told
from tests.check.mutants import MUTANTS, Mutant

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "mutants.md"
QUICK = {"tcp-split-write", "tcp-half-close", "tcp-burst", "udp-empty", "client-cut-reply"}
# Cases that no mutant of ours shows, and why.
WITHOUT = {
    "tcp-last-line": "it demands nothing",
    "tcp-many-descriptors": "only with --thorough",
}


def judged(mutant: Mutant, folder: Path, *only: str) -> set[str]:
    path = folder / "program.py"
    path.write_text(mutant.text(), encoding="utf-8")
    if mutant.role == "client":
        result = judge_client([sys.executable, str(path), "{host}", "{port}"], mutant.agreed, *only)
    else:
        # Where only its own case is asked, what it will fail needn't be waited for.
        patience = 0.5 if only else PATIENCE
        result = judge([sys.executable, str(path), "{port}"], mutant.agreed, *only, patience=patience)
    found = failed(result)
    assert mutant.case in found, [each for each in result.outcomes if each.verdict is not Verdict.PASS]
    assert found <= {mutant.case, *mutant.due}, told(result)
    return found


@pytest.mark.parametrize("mutant", [each for each in MUTANTS if each.case in QUICK], ids=lambda m: m.case)
def test_a_mutant_fails_its_own_case(mutant: Mutant, tmp_path: Path) -> None:
    judged(mutant, tmp_path, mutant.case)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.case)
def test_a_mutant_fails_no_other_case(mutant: Mutant, tmp_path: Path) -> None:
    judged(mutant, tmp_path)


def test_every_case_has_a_mutant() -> None:
    every = {case.id for suite in SUITES for case in cases(suite)}
    assert every == {each.case for each in MUTANTS} | set(WITHOUT)


def row(mutant: Mutant) -> str:
    due = ", ".join(f"`{name}`" for name in mutant.due) or "-"
    return f"| `{mutant.case}` | {mutant.mistake} | {due} |"


def test_the_page_has_every_mutant() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert rows == [row(mutant) for mutant in MUTANTS]
