"""The corpus of faulty programs: the first finding names the fault. See `tests/trace/faults/README.md`."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothends.trace.findings import Finding
from tests.trace import corpus

pytestmark = [pytest.mark.usefixtures("call_source"), pytest.mark.spread("call_source", one_in=2)]


@pytest.mark.parametrize("case", corpus.load_cases("faults"))
def test_faulty_program_has_its_fault_named_first(case: corpus.CorpusCase, tmp_path: Path) -> None:
    trace = corpus.run_case(case, tmp_path)
    findings = corpus.find_all(trace)
    assert case.rule, "expect.toml has no rule"
    first = findings[0].rule if findings else "nothing"
    assert first == case.rule, corpus.describe(findings, trace)
    assert case.text in f"{findings[0].title}. {findings[0].text}", corpus.describe(findings, trace)
    assert set(case.also) <= _all_rules(findings), corpus.describe(findings, trace)


def _all_rules(findings: list[Finding]) -> set[str]:
    return {each.rule for finding in findings for each in (finding, *getattr(finding, "consequences", ()))}
