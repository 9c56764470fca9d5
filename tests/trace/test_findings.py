"""Each rule on a program with the mistake and on one without, under a real strace."""

from __future__ import annotations

import pytest

from bothends.trace.findings import RULES, evidence_lines
from tests.tools import needs_tool
from tests.trace.corpus import load_cases
from tests.trace.faulty_programs import COMMON, FAULTY_PROGRAMS, PATH_CASES, FaultyProgram
from tests.trace.running import findings_by_rule, has_packets, python_command, run_traced

pytestmark = [needs_tool("strace")]

NEEDS_PACKETS = {"closed-with-unread-data", "nagle-delayed-ack", "backlog-overflow"}

# The others wait for timeouts, and run with `make slow` only.
QUICK = {
    "one-recv-per-message",
    "truncated-datagram",
    "swapped-port",
    "refused-too-early",
    "write-after-close",
}


def faulty_program(mistake: FaultyProgram, part: str) -> list[str]:
    return python_command(COMMON + mistake.common.replace("{program}", part))


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(each, id=each.rule, marks=() if each.rule in QUICK else pytest.mark.slow)
        for each in FAULTY_PROGRAMS
    ],
)
def test_rule_finds_faulty_program_only(mistake: FaultyProgram) -> None:
    if mistake.rule in NEEDS_PACKETS and not has_packets():
        pytest.skip("packets can't be captured here")
    wrong = run_traced(faulty_program(mistake, mistake.wrong))
    findings = findings_by_rule(wrong)
    assert mistake.rule in findings
    finding = findings[mistake.rule]
    assert finding.evidence
    assert evidence_lines(finding, wrong)
    assert mistake.rule not in findings_by_rule(run_traced(faulty_program(mistake, mistake.right)))


def test_every_rule_has_a_faulty_program() -> None:
    tested = {each.rule for each in (*FAULTY_PROGRAMS, *PATH_CASES)}
    tested |= {rule for each in load_cases("faults") for rule in (each.values[0].rule, *each.values[0].also)}
    tested |= {"refused" for each in tested if each.startswith("refused")}
    assert set(RULES) <= tested
