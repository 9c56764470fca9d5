"""The page docs/how-to/trace.md: its commands are run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bothends.trace.findings import RULES
from tests.interop.running import ROOT
from tests.pages import Page
from tests.tools import needs_tool
from tests.trace.corpus import load_cases
from tests.trace.faulty_programs import FAULTY_PROGRAMS, PATH_CASES
from tests.trace.running import has_packets

PAGE = ROOT / "docs" / "how-to" / "trace.md"


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
