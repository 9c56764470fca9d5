"""The example of docs/how-to/add-a-case.md passes the starter, and fails its mutant."""

from __future__ import annotations

import asyncio
import re
import types
from dataclasses import replace
from pathlib import Path

import pytest

from bothends.check.case import Case, Verdict
from bothends.check.contract import load
from bothends.check.runner import SuiteRun
from bothends.check.subjects.server_context import ServerContext
from bothends.check.subjects.server_under_test import ServerUnderTest
from bothends.check.suites import stream_server_stimuli
from bothends.check.suites.registry import cases
from bothends.starters.writing import Starter, make_starter
from tests.check.helpers import build_starter
from tests.check.mutants import parse_edit

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-case.md"


def run_case(case: Case[ServerContext], program: Starter, folder: Path) -> Verdict:
    folder.mkdir()
    gate = cases("tcp")[0]
    run = SuiteRun(
        ServerUnderTest(load("upper-tcp"), build_starter(folder, program)),
        (gate, replace(case, after=())),
        "tcp",
    )
    return asyncio.run(run.run()).outcomes[-1].verdict


@pytest.mark.slow
def test_guide_case_passes_starter_and_fails_mutant(tmp_path: Path) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    stimulus, row = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (mutant,) = re.findall(r"^```diff\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    namespace = dict(vars(stream_server_stimuli))
    exec(compile(stimulus, "stream_server_stimuli.py", "exec"), namespace)
    names = {"Case": Case, "stimuli": types.SimpleNamespace(**namespace)}
    case: Case[ServerContext] = eval(row.strip().removesuffix(","), names)
    assert {*case.after} <= {each.id for each in cases("tcp")}
    starter = make_starter("server", "python", "tcp")
    header, *change = mutant.splitlines()
    assert header.startswith(f"== {case.id}: ")
    old, new = parse_edit(change)
    assert starter.text.count(old) == 1
    faulty = replace(starter, text=starter.text.replace(old, new))
    assert run_case(case, starter, tmp_path / "correct") is Verdict.PASS
    assert run_case(case, faulty, tmp_path / "faulty") is Verdict.FAIL
