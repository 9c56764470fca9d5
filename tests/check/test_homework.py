"""Programs like those that strangers hand in, each with the verdict of a teacher: no false FAIL.

A file of `homework/` has one program:

    contract = "upper-tcp-once"     built in, or one of `files`, or of `homework/contracts`
    role = "client"                 default: "server"
    points = 12                     of the contract's total, if nothing in `may` fails
    total = 21
    [fail]
    tcp-restart = "no SO_REUSEADDR" a case that must fail, and the beginning of the cause that is named
    [may]
    tcp-burst = "a backlog of"      a case that fails or not, by chance: the program or the machine decides;
                                    " | " separates causes that are possible
    [files]
    "server.py" = ''' ... '''

All other cases must not fail. `BOTHENDS_ROUNDS=5` judges each program five times.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from bothends.check.batch.grading import BatchSettings, JudgedSubmission, judge_all
from bothends.check.case import Verdict
from tests.check.helpers import format_failures
from tests.tools import find_tool

HOMEWORK: Final = Path(__file__).parent / "homework"
QUICK: Final = ("does-not-compile", "greets-first", "swaps-case")
TOOLS: Final = {".c": "cc", ".java": "javac", ".js": "node"}


@dataclass(frozen=True)
class Homework:
    """A program, and the verdict that it must get."""

    name: str
    contract: str
    points: float
    total: float
    role: str = "server"
    fail: dict[str, str] = field(default_factory=dict)
    may: dict[str, str] = field(default_factory=dict)
    remark: str = ""
    files: dict[str, str] = field(default_factory=dict)

    def settings(self) -> BatchSettings:
        """Return the settings of a batch for it."""
        own = HOMEWORK / "contracts" / self.contract
        text = own.read_text(encoding="utf-8") if own.is_file() else self.contract
        text = self.files.get(self.contract, text)
        return BatchSettings(self.role, text, sandbox=False)


def load(path: Path) -> Homework:
    found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    return Homework(path.stem, **found)


PROGRAMS: Final = {path.stem: load(path) for path in sorted(HOMEWORK.glob("*.toml"))}


def judge(homework: Homework, folder: Path, out: Path) -> JudgedSubmission:
    for name, text in homework.files.items():
        if (tool := TOOLS.get(Path(name).suffix)) and not find_tool(tool):
            pytest.skip(f"{tool} is not installed")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    [judged] = judge_all([folder], homework.settings(), out, workers=1)
    return judged


def expect_verdict(homework: Homework, judged: JudgedSubmission) -> None:
    result = judged.result
    evidence = format_failures(result)
    causes = {each.case: each.likely_cause for each in result.outcomes if each.verdict is Verdict.FAIL}
    assert homework.fail.keys() <= causes.keys() <= {*homework.fail, *homework.may}, evidence
    for case, cause in causes.items():
        expected = homework.fail.get(case) or homework.may.get(case, "")
        assert cause.startswith(tuple(expected.split(" | "))), f"{case}: {cause}"
    assert result.max_points == homework.total, evidence
    by_chance = len(homework.may)
    assert homework.points - by_chance <= result.points <= homework.points, evidence
    assert homework.remark in judged.remark


@pytest.mark.parametrize("name", QUICK)
def test_program_gets_the_verdict_of_a_teacher(name: str, tmp_path: Path) -> None:
    homework = PROGRAMS[name]
    expect_verdict(homework, judge(homework, tmp_path / name, tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("round_number", range(int(os.environ.get("BOTHENDS_ROUNDS", "1"))))
@pytest.mark.parametrize("name", [each for each in PROGRAMS if each not in QUICK])
def test_every_program_gets_the_verdict_of_a_teacher(name: str, round_number: int, tmp_path: Path) -> None:
    homework = PROGRAMS[name]
    folder = tmp_path / f"{name}-{round_number}"
    expect_verdict(homework, judge(homework, folder, tmp_path / "out"))


def test_corpus_has_thirty_programs_in_four_languages() -> None:
    assert len(PROGRAMS) >= 30
    suffixes = {Path(name).suffix for each in PROGRAMS.values() for name in each.files}
    assert {".py", ".c", ".java", ".js"} <= suffixes
    assert {each.role for each in PROGRAMS.values()} == {"server", "client"}
