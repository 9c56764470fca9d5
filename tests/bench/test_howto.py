"""Run the commands of docs/how-to/measure.md, and compare its table of faults with the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bothends.bench.results import Faults
from tests.interop.running import ROOT
from tests.pages import Page

PAGE = ROOT / "docs" / "how-to" / "measure.md"


@pytest.mark.slow
def test_measure_guide_commands(tmp_path: Path) -> None:
    Page(PAGE, tmp_path).run()
    assert (tmp_path / "engines.html").read_text().startswith("<!doctype html>")


def test_measure_guide_lists_every_fault() -> None:
    shown = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert shown == list(Faults().as_dict())
