"""Show a result of `bothends check`: a table, then the details of each failure with its evidence."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TextIO

from bothends.check.case import Verdict
from bothends.cli import terminal
from bothends.cli.terminal import styled, table

if TYPE_CHECKING:
    from bothends.check.results import CaseOutcome, SuiteResult

_STYLE: Final = {
    Verdict.PASS: "good",
    Verdict.FAIL: "error",
    Verdict.NON_STRICT: "warning",
    Verdict.INFO: "",
    Verdict.SKIP: "quiet",
}

_MAX_CELL_WIDTH: Final = 90  # characters in the table; the details below it show the full text


def show_verdicts(outcomes: Sequence[CaseOutcome]) -> None:
    """Print a table of verdicts on stdout."""
    rows = [(each.verdict.value, each.case, _summary(each)) for each in outcomes]
    table(("verdict", "case", "what happened"), rows, {each.value: _STYLE[each] for each in Verdict})


def show(result: SuiteResult, *, verbose: bool = False) -> None:
    """Print a result on stdout. `verbose` adds the transcript of every case that has one."""
    show_verdicts(result.outcomes)
    for outcome in result.outcomes:
        if outcome.verdict is Verdict.FAIL or (verbose and outcome.transcript):
            _print_details(outcome)
    for note in result.notes:
        terminal.show(styled(f"note: {note}", "quiet", sys.stdout))
    terminal.show()
    show_score(result, sys.stdout)


def show_score(result: SuiteResult, stream: TextIO) -> None:
    """Print how many cases have each verdict, and the points, as one line."""
    counted = [
        styled(f"{result.counts[verdict]} {verdict.value}", _STYLE[verdict], stream)
        for verdict in (Verdict.PASS, Verdict.NON_STRICT, Verdict.INFO, Verdict.FAIL, Verdict.SKIP)
        if result.counts[verdict]
    ]
    marks = f"{result.points:g} of {result.max_points:g} points"
    terminal.show(f"{result.contract}: {', '.join(counted)}; {marks}; {result.seconds:.1f} s", stream=stream)


def _summary(outcome: CaseOutcome) -> str:
    text = outcome.summary.split("\n")[0]
    text = text if len(text) <= _MAX_CELL_WIDTH else text[:_MAX_CELL_WIDTH] + "..."
    expected_attempts = 2 if outcome.verdict is Verdict.FAIL else 1  # a failure is always repeated
    return text + (f" (after {outcome.attempts} attempts)" if outcome.attempts > expected_attempts else "")


def _print_details(outcome: CaseOutcome) -> None:
    terminal.show()
    terminal.show(f"{styled(outcome.verdict.value, _STYLE[outcome.verdict], sys.stdout)} {outcome.case}")
    for head, text in (
        ("expected", outcome.expected),
        ("happened", outcome.happened or outcome.detail),
        ("mistake", outcome.likely_cause),
        ("picture", outcome.evidence),
    ):
        if text:
            terminal.show(f"  {head:<9} {text}")
    for entry in outcome.transcript:
        terminal.show(f"  {entry.seconds:8.3f}  {entry.actor:<10} {entry.event}")
    if outcome.stderr_tail:
        terminal.show("  stderr:")
        for line in outcome.stderr_tail.splitlines():
            terminal.show(f"    {line}")
