"""Every rule on a program that makes the mistake and on one that does not, under a real strace."""

from __future__ import annotations

import pytest

from bothends.trace.findings import RULES, evidence_lines
from tests.tools import needs_tool
from tests.trace.faulty_programs import COMMON, MISTAKES, PATHS, Mistake
from tests.trace.running import found, has_packets, python, traced

pytestmark = [needs_tool("strace")]

NEEDS_PACKETS = {"closed-with-unread-data", "nagle-delayed-ack", "backlog-overflow"}

# These run each time; the others, which wait for something to be late, by `make slow`.
QUICK = {
    "one-recv-per-message",
    "truncated-datagram",
    "swapped-port",
    "refused-too-early",
    "write-after-close",
}


def program(mistake: Mistake, part: str) -> list[str]:
    return python(COMMON + mistake.common.replace("{program}", part))


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(each, id=each.rule, marks=() if each.rule in QUICK else pytest.mark.slow)
        for each in MISTAKES
    ],
)
def test_the_mistake_is_found_and_what_is_right_is_not(mistake: Mistake) -> None:
    if mistake.rule in NEEDS_PACKETS and not has_packets():
        pytest.skip("packets can't be captured here")
    wrong = traced(program(mistake, mistake.wrong))
    findings = found(wrong)
    assert mistake.rule in findings
    finding = findings[mistake.rule]
    assert finding.evidence
    assert evidence_lines(finding, wrong)
    assert mistake.rule not in found(traced(program(mistake, mistake.right)))


def test_every_rule_has_its_programs() -> None:
    tried = {"refused" if each.rule.startswith("refused") else each.rule for each in MISTAKES}
    assert tried | {each.rule for each in PATHS} == set(RULES)
