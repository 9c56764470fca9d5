"""Each mutant fails its own case, and no others except those that its mistake may also fail."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from bothends.check.case import Verdict
from bothends.check.runner import DEFAULT_TIMEOUT
from bothends.check.suites.registry import SUITES, cases
from tests.check.helpers import build_starter, failed_cases, format_failures, judge, judge_client, judge_proxy
from tests.check.mutants import MUTANTS, Mutant

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "mutants.md"
QUICK = {
    *("python-tcp-split-write", "python-tcp-half-close", "python-tcp-burst", "python-udp-empty"),
    *("python-proxy-half-close-client", "python-proxy-deaf-client", "python-udp-proxy-two-clients"),
    *("python-client-cut-reply", "c-tcp-half-close", "c-udp-lengths", "java-client-cut-reply"),
}
LANGUAGES = {"python": "Python", "c": "C", "java": "Java"}
THOROUGH = {case.id for case in cases("tcp") if case.thorough}
CASES_WITHOUT_MUTANT = {"tcp-last-line"}  # it requires nothing


def judge_mutant(mutant: Mutant, folder: Path, *only: str) -> set[str]:
    command = build_starter(folder, mutant.mutated_starter())
    if mutant.role == "client":
        result = judge_client(command, mutant.contract, *only)
    elif mutant.role == "proxy":
        transport: Literal["tcp", "udp"] = "udp" if mutant.suite == "udp-proxy" else "tcp"
        result = judge_proxy(command, transport, *only, timeout=0.5 if only else DEFAULT_TIMEOUT)
    else:
        # A short timeout is enough if only the mutant's own case runs, which must fail.
        timeout = 0.5 if only else DEFAULT_TIMEOUT
        result = judge(command, mutant.contract, *only, timeout=timeout, thorough=mutant.case in THOROUGH)
    found = failed_cases(result)
    assert mutant.case in found, [each for each in result.outcomes if each.verdict is not Verdict.PASS]
    assert found <= {mutant.case, *mutant.also_fails}, format_failures(result)
    return found


@pytest.mark.spread("mutant", one_in=3)
@pytest.mark.parametrize("mutant", [each for each in MUTANTS if str(each) in QUICK], ids=str)
def test_mutant_fails_own_case(mutant: Mutant, tmp_path: Path) -> None:
    judge_mutant(mutant, tmp_path, mutant.case)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_mutant_fails_no_other_case(mutant: Mutant, tmp_path: Path) -> None:
    judge_mutant(mutant, tmp_path)


def test_every_case_has_a_mutant() -> None:
    case_ids = {case.id for suite in SUITES for case in cases(suite)}
    assert case_ids == {each.case for each in MUTANTS} | CASES_WITHOUT_MUTANT


def table_row(mutant: Mutant) -> str:
    also_fails = ", ".join(f"`{name}`" for name in mutant.also_fails) or "-"
    return f"| `{mutant.case}` | {LANGUAGES[mutant.language]} | {mutant.mistake} | {also_fails} |"


def test_docs_table_lists_every_mutant() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert rows == [table_row(mutant) for mutant in MUTANTS]
