"""The corpus of programs without a fault: no rule finds anything. See `tests/trace/faults/README.md`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trace import corpus


@pytest.mark.parametrize("case", corpus.load_cases("healthy"))
def test_healthy_program_draws_no_finding(case: corpus.CorpusCase, tmp_path: Path) -> None:
    trace = corpus.run_case(case, tmp_path)
    findings = corpus.find_all(trace)
    assert not findings, corpus.describe(findings, trace)
