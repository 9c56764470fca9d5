"""The pages docs/how-to/trace.md and add-a-finding.md: their commands and code are run."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

from bothends.trace.findings import RULES
from bothends.trace.findings.base import TraceIndex
from tests.interop.running import ROOT
from tests.pages import Page
from tests.tools import needs_tool
from tests.trace.corpus import load_cases
from tests.trace.faulty_programs import FAULTY_PROGRAMS, PATH_CASES
from tests.trace.running import has_packets, run_traced

PAGE = ROOT / "docs" / "how-to" / "trace.md"


@pytest.mark.slow
@needs_tool("strace")
def test_howto_page_commands_show_documented_output(tmp_path: Path) -> None:
    if not has_packets():
        pytest.skip("packets can't be captured here")
    Page(PAGE, tmp_path).run()


def test_howto_page_lists_every_rule() -> None:
    shown = re.findall(r"^\| ((?:`[\w-]+`(?:, )?)+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    names = {name for cell in shown for name in re.findall(r"`([\w-]+)`", cell)}
    corpus = {rule for each in load_cases("faults") for rule in (each.values[0].rule, *each.values[0].also)}
    assert names <= {each.rule for each in (*FAULTY_PROGRAMS, *PATH_CASES)} | corpus
    assert set(RULES) - {"refused"} <= names


@needs_tool("strace")
def test_add_a_finding_guide_code_runs(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "how-to" / "add-a-finding.md").read_text(encoding="utf-8")
    program, rule, line = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    module = types.ModuleType("byte_by_byte")
    exec(compile(rule, "byte_by_byte.py", "exec", dont_inherit=True), module.__dict__)
    (tmp_path / "client.py").write_text(program, encoding="utf-8")
    trace = run_traced([sys.executable, str(tmp_path / "client.py")], packets=False)
    (finding,) = module.byte_by_byte(TraceIndex(trace))
    assert line.strip() == f'"{finding.rule}": {module.__name__}.byte_by_byte,'
    assert "15 times" in finding.text
