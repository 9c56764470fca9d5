"""What docs/how-to/add-a-case.md shows does what it says there."""

from __future__ import annotations

import asyncio
import re
import types
from dataclasses import replace
from pathlib import Path

from bothends.check.case import Case, Verdict
from bothends.check.contract import load
from bothends.check.runner import SuiteRun
from bothends.check.subjects.server_under_test import ServerUnderTest
from bothends.check.suites.registry import cases
from bothends.starters.writing import Starter, make_starter
from tests.check.helpers import build_starter
from tests.check.mutants import parse_edit

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-case.md"


def run_case(case: Case, program: Starter, folder: Path) -> Verdict:
    folder.mkdir()
    gate = cases("tcp")[0]
    run = SuiteRun(
        ServerUnderTest(load("upper-tcp"), build_starter(folder, program)),
        (gate, replace(case, after=())),
        "tcp",
    )
    return asyncio.run(run.run()).outcomes[-1].verdict


def test_guide_case_passes_starter_and_fails_mutant(tmp_path: Path) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    stimulus, row = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (mutant,) = re.findall(r"^```diff\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    module = types.ModuleType("bothends.check.suites.stream_twins")
    exec(compile(stimulus, "stream_twins.py", "exec", dont_inherit=True), module.__dict__)
    case = eval(row.strip().removesuffix(","), {"Case": Case, "twins": module})
    assert {*case.after} <= {each.id for each in cases("tcp")}
    right = make_starter("server", "python", "tcp")
    head, *change = mutant.splitlines()
    assert head.startswith(f"== {case.id}: ")
    old, new = parse_edit(change)
    assert right.text.count(old) == 1
    assert run_case(case, right, tmp_path / "right") is Verdict.PASS
    assert (
        run_case(case, replace(right, text=right.text.replace(old, new)), tmp_path / "wrong") is Verdict.FAIL
    )
