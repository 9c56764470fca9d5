"""Twelve and more assignments of public courses, each written as a contract from the guides alone.

A folder has the contract, in our own words, the files of a solution, and `assignment.toml`:

    source = "..."            the course, and what it calls the assignment
    minutes = 2               how long it took to write the contract, on a clock
    role = "client"           default: "server"
    build = ["cc", ...]       a command, or none
    run = [...]
    code = true               the contract has Python functions
    [mistake]                 a classic one: in `file`, `old` becomes `new`; then `case` fails with `happened`
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pytest

from bothends.check.case import Verdict
from bothends.check.contract import Contract, load
from bothends.check.results import SuiteResult
from bothends.check.runner import SuiteRun
from bothends.check.subjects.client_under_test import ClientUnderTest
from bothends.check.subjects.server_under_test import ServerUnderTest
from bothends.check.suites.registry import cases, suite_for
from tests.check.helpers import failed_cases, format_failures
from tests.tools import find_tool

FOLDER: Final = Path(__file__).parent
NEEDED: Final = {"cc": "cc", "c++": "c++", "javac": "javac", "rustc": "rustc", "node": "node"}


@dataclass(frozen=True)
class Mistake:
    """A change of the solution, and the case that shows it."""

    file: str
    old: str
    new: str
    case: str
    happened: str


@dataclass(frozen=True)
class Assignment:
    """An assignment and its solution."""

    source: str
    minutes: float
    run: list[str]
    mistake: Mistake
    role: Literal["server", "client"] = "server"
    build: tuple[str, ...] = ()
    code: bool = False


def read(name: str) -> Assignment:
    found: dict[str, Any] = tomllib.loads((FOLDER / name / "assignment.toml").read_text(encoding="utf-8"))
    return Assignment(**{**found, "mistake": Mistake(**found["mistake"])})


ASSIGNMENTS: Final = {path.parent.name: read(path.parent.name) for path in FOLDER.glob("*/assignment.toml")}
NAMES: Final = sorted(ASSIGNMENTS)


def read_contract(name: str) -> Contract:
    return load(str(FOLDER / name / "contract.toml"), allow_code=ASSIGNMENTS[name].code)


def judge(name: str, folder: Path, *only: str, mistake: Mistake | None = None) -> SuiteResult:
    """Build and judge a copy of the solution, or of one with a mistake."""
    assignment = ASSIGNMENTS[name]
    for word in (*assignment.build[:1], *assignment.run[:1]):
        if (tool := NEEDED.get(word)) and not find_tool(tool):
            pytest.skip(f"{tool} is not installed")
    copy = folder / name
    shutil.copytree(FOLDER / name, copy)
    if mistake is not None:
        path = copy / mistake.file
        text = path.read_text(encoding="utf-8")
        assert text.count(mistake.old) == 1
        path.write_text(text.replace(mistake.old, mistake.new), encoding="utf-8")
    if assignment.build:
        done = subprocess.run(assignment.build, cwd=copy, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    first = sys.executable if assignment.run[0] == "python3" else assignment.run[0]
    command = [str(copy / first) if first.startswith("./") else first, *assignment.run[1:]]
    contract = read_contract(name)
    suite = suite_for(contract, assignment.role)
    program = (
        ServerUnderTest(contract, command, cwd=copy)
        if assignment.role == "server"
        else ClientUnderTest(contract, command, cwd=copy)
    )
    return asyncio.run(SuiteRun(program, cases(suite, contract), suite, only=only, timeout=1.0).run())


@pytest.mark.spread("name", one_in=6)
@pytest.mark.parametrize("name", NAMES)
def test_solution_passes_first_scene(name: str, tmp_path: Path) -> None:
    case = read_contract(name).scenes[0].case_id
    result = judge(name, tmp_path, case)
    [found] = [each for each in result.outcomes if each.case == case]
    assert found.verdict is Verdict.PASS, format_failures(result)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_solution_gets_all_points(name: str, tmp_path: Path) -> None:
    result = judge(name, tmp_path)
    assert not failed_cases(result), format_failures(result)
    assert not any("the contract's" in each.detail for each in result.outcomes)
    assert result.points == result.max_points >= 2


@pytest.mark.spread("name", one_in=6)
@pytest.mark.parametrize("name", NAMES)
def test_classic_mistake_fails(name: str, tmp_path: Path) -> None:
    mistake = ASSIGNMENTS[name].mistake
    result = judge(name, tmp_path, mistake.case, mistake=mistake)
    [found] = [each for each in result.outcomes if each.case == mistake.case]
    assert found.verdict is Verdict.FAIL, found
    assert mistake.happened in found.happened, format_failures(result)


def test_twelve_assignments_of_several_kinds() -> None:
    assert len(ASSIGNMENTS) >= 12
    assert {each.role for each in ASSIGNMENTS.values()} == {"server", "client"}
    assert all(each.source and each.minutes < 15 for each in ASSIGNMENTS.values())
    suffixes = {path.suffix for name in NAMES for path in (FOLDER / name).iterdir()}
    assert {".py", ".c", ".cc", ".java", ".js", ".rs"} <= suffixes
    # A contract is all that a teacher writes: no more than a page.
    for name in NAMES:
        lines = (FOLDER / name / "contract.toml").read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 80, name
