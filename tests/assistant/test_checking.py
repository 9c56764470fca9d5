"""The process of a check: its report is read to the end, and bounded."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from bothends.assistant import checking
from bothends.errors import UsageError

WRITER = """\
import sys
sys.stderr.write("e" * 300_000 + "the end")
sys.stderr.flush()
sys.stdout.write("x" * 300_000)
sys.stdout.flush()
sys.exit(3)
"""


def run(folder: Path) -> tuple[int, bytes, str]:
    return asyncio.run(checking._run([sys.executable, "-c", WRITER], folder))


def test_report_of_more_than_one_read_is_whole(tmp_path: Path) -> None:
    status, output, problem = run(tmp_path)
    assert (status, output) == (3, b"x" * 300_000)
    assert problem.endswith("eeethe end")
    assert len(problem) == 2000


def test_report_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_MAX_REPORT", 200_000)
    with pytest.raises(UsageError, match="longer than 200,000 bytes"):
        run(tmp_path)
    monkeypatch.setattr(checking, "_MAX_REPORT", 300_000)
    assert len(run(tmp_path)[1]) == 300_000
