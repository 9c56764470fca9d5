"""Report formats: text, JSON, JUnit XML, TAP, Gradescope's results.json, GitHub Classroom's and HTML. Pure.

Sources: the XML format of Jenkins' JUnit plugin (testsuite, testcase, failure, skipped); the Test Anything
Protocol, version 14; Gradescope's autograder specification (results.json); what GitHub Classroom's action
autograding-grading-reporter reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from xml.etree import ElementTree

from bothends.check.case import Verdict
from bothends.check.reports.html import as_html
from bothends.check.results import CaseOutcome, SuiteResult
from bothends.escaping import escape_controls, escape_line
from bothends.foreign_text import json_text


def render(result: SuiteResult, report_format: str) -> str:
    """Return a report in one of `FORMATS`.

    Texts of the program were escaped when they were recorded. The formats escape what is left, such as the
    characters of a case of one's own, of a title or of a file's name.
    """
    return _RENDERERS[report_format](result)


def format_evidence(outcome: CaseOutcome) -> str:
    """Return the evidence of a failure as text: the descriptions, the transcript and standard error."""
    lines = [
        f"{head}: {text}"
        for head, text in (
            ("expected", outcome.expected),
            ("happened", outcome.happened or outcome.detail),
            ("mistake", outcome.likely_cause),
            ("picture", outcome.evidence),
        )
        if text
    ]
    lines += [f"{entry.seconds:8.3f}  {entry.actor:<10} {entry.event}" for entry in outcome.transcript]
    if outcome.stderr_tail:
        lines += ["stderr:", *(f"  {line}" for line in outcome.stderr_tail.splitlines())]
    return escape_controls("\n".join(lines))


def as_text(result: SuiteResult) -> str:
    """Return a report as plain text."""
    lines = [escape_line(f"{result.program}: {result.contract}")]
    for outcome in result.outcomes:
        lines.append(f"{outcome.verdict.value:<10}  {outcome.case:<26} {outcome.summary}".rstrip())
        if outcome.verdict is Verdict.FAIL:
            lines += [f"    {line}" for line in format_evidence(outcome).splitlines()]
    lines.append(f"{result.points:g} of {result.max_points:g} points")
    return escape_controls("\n".join(lines)) + "\n"


def as_json(result: SuiteResult) -> str:
    """Return a report as an indented JSON object."""
    return json_text(result.as_object(), indent=2) + "\n"


def as_junit(result: SuiteResult) -> str:
    """Return a report as JUnit XML. XML cannot represent control characters: they are escaped."""
    counts = result.counts
    suite = ElementTree.Element(
        "testsuite",
        name=escape_line(f"{result.contract}: {result.program}"),
        tests=str(len(result.outcomes)),
        failures=str(counts[Verdict.FAIL]),
        skipped=str(counts[Verdict.SKIP]),
        errors="0",
        time=f"{result.seconds:.3f}",
    )
    for outcome in result.outcomes:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            {
                "name": escape_line(outcome.case),
                "classname": escape_line(result.contract),
                "time": f"{outcome.seconds:.3f}",
            },
        )
        if outcome.verdict is Verdict.FAIL:
            ElementTree.SubElement(
                case, "failure", message=escape_controls(outcome.happened)
            ).text = format_evidence(outcome)
        elif outcome.verdict is Verdict.SKIP:
            ElementTree.SubElement(case, "skipped", message=escape_controls(outcome.summary))
        elif outcome.detail or outcome.happened:
            text = f"{outcome.verdict.value}: {outcome.detail or outcome.happened}"
            ElementTree.SubElement(case, "system-out").text = escape_controls(text)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def as_tap(result: SuiteResult) -> str:
    """Return a report as TAP 14, with a YAML block for each failure."""
    lines = ["TAP version 14", f"1..{len(result.outcomes)}"]
    for number, outcome in enumerate(result.outcomes, 1):
        status = "not ok" if outcome.verdict is Verdict.FAIL else "ok"
        directive = f" # SKIP {escape_line(outcome.summary)}" if outcome.verdict is Verdict.SKIP else ""
        lines.append(f"{status} {number} - {escape_line(outcome.case)}{directive}")
        if outcome.verdict is Verdict.FAIL:
            block = format_evidence(outcome).splitlines()
            lines += ["  ---", "  message: |-", *(f"    {line}" for line in block), "  ..."]
        elif outcome.verdict in (Verdict.NON_STRICT, Verdict.INFO):
            lines.append(f"# {outcome.verdict.value}: {escape_line(outcome.detail or outcome.happened)}")
    return "\n".join(lines) + "\n"


def as_gradescope(result: SuiteResult) -> str:
    """Return Gradescope's results.json: each case that has points, or was not skipped, with its evidence.

    Its specification gives `score` and `tests`, of which each has a `score`, `max_score`, `name`, `status`,
    `output` and `output_format`.
    """
    tests = [
        {
            "name": outcome.case,
            "score": outcome.points,
            "max_score": outcome.max_points,
            "status": "failed" if _is_lost(outcome) else "passed",
            "output": _explain(outcome),
            "output_format": "text",
        }
        for outcome in result.outcomes
        if outcome.verdict is not Verdict.SKIP or outcome.max_points
    ]
    report = {
        "score": result.points,
        "execution_time": round(result.seconds),
        "output": f"{result.contract}: {result.points:g} of {result.max_points:g} points",
        "tests": tests,
    }
    return json_text(report, indent=2) + "\n"


def as_classroom(result: SuiteResult) -> str:
    """Return the result of a step that GitHub Classroom's action autograding-grading-reporter reads.

    The action expects it in Base64, in the environment variable that is named after the step.
    """
    tests = [
        {
            "name": outcome.case,
            "status": "fail" if _is_lost(outcome) else "pass",
            "message": _explain(outcome),
            "score": outcome.points,
        }
        for outcome in result.outcomes
        if outcome.max_points
    ]
    report = {
        "version": 1,
        "status": "fail" if result.points < result.max_points else "pass",
        "max_score": result.max_points,
        "tests": tests,
    }
    return json_text(report, indent=2) + "\n"


def _is_lost(outcome: CaseOutcome) -> bool:
    """Whether a case has failed, or could not be asked at the cost of its points."""
    return outcome.verdict is Verdict.FAIL or outcome.points < outcome.max_points


def _explain(outcome: CaseOutcome) -> str:
    """Return what a case does and why, its verdict and its evidence, as text for a student."""
    head = [
        f"{name}: {text}"
        for name, text in (
            ("test", outcome.stimulus),
            ("expected", outcome.expectation if outcome.verdict is not Verdict.FAIL else ""),
            ("why", outcome.why),
            (outcome.verdict.value, outcome.summary),
        )
        if text
    ]
    evidence = format_evidence(outcome) if outcome.verdict is Verdict.FAIL else ""
    return escape_controls("\n".join([*head, *([evidence] if evidence else [])])) or outcome.verdict.value


_RENDERERS: Final[dict[str, Callable[[SuiteResult], str]]] = {
    "text": as_text,
    "json": as_json,
    "junit": as_junit,
    "tap": as_tap,
    "gradescope": as_gradescope,
    "classroom": as_classroom,
    "html": as_html,
}
FORMATS: Final = tuple(_RENDERERS)

SUFFIXES: Final = {
    "text": ".txt",
    "json": ".json",
    "junit": ".junit.xml",
    "tap": ".tap",
    "gradescope": ".gradescope.json",
    "classroom": ".classroom.json",
    "html": ".html",
}
"""The ends of the names of files in each format."""
