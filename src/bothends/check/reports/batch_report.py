"""The results of many programs: a table for a spreadsheet, and a page with the commonest mistakes. Pure."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from html import escape

from bothends.check.batch.grading import JudgedSubmission
from bothends.check.case import Verdict
from bothends.check.reports.html import document


def as_csv(submissions: Sequence[JudgedSubmission]) -> str:
    """A line for each program: its marks, then the verdict of each case."""
    cases = list(dict.fromkeys(each.case for one in submissions for each in one.result.outcomes))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["name", "language", "points", "most", "failed", *cases])
    for one in submissions:
        verdicts = {each.case: each.verdict.value for each in one.result.outcomes}
        failed = one.result.counts[Verdict.FAIL]
        marks = [f"{one.result.points:g}", f"{one.result.most:g}", str(failed)]
        # A cell that begins with = would be a formula to a spreadsheet.
        name = f"'{one.name}" if one.name[:1] in "=+-@" else one.name
        writer.writerow([name, one.language, *marks, *(verdicts.get(case, "") for case in cases)])
    return buffer.getvalue()


def common_failures(submissions: Sequence[JudgedSubmission]) -> list[tuple[str, str, int]]:
    """The cases that most failed: the case, its mistake, and how many failed it."""
    failed = Counter(
        (each.case, each.mistake)
        for one in submissions
        for each in one.result.outcomes
        if each.verdict is Verdict.FAIL
    )
    return [(case, mistake, count) for (case, mistake), count in failed.most_common()]


def as_html(submissions: Sequence[JudgedSubmission], contract: str) -> str:
    """One page that needs nothing else."""
    total = len(submissions)
    well = sum(not one.result.failed for one in submissions)
    mistakes = "".join(
        f"<tr><td>{count}</td><td><code>{escape(case)}</code></td><td>{escape(mistake)}</td></tr>"
        for case, mistake, count in common_failures(submissions)
    )
    rows = "".join(map(_row, submissions))
    heads = "<tr><th>name</th><th>language</th><th>points</th><th>what failed</th></tr>"
    body = (
        f"<h1>{escape(contract)}: {well} of {total} programs fail nothing</h1>"
        "<h2>The commonest mistakes</h2>"
        f"<table><thead><tr><th>programs</th><th>case</th><th>the classic mistake</th></tr></thead>"
        f"<tbody>{mistakes or '<tr><td>0</td><td>-</td><td>none</td></tr>'}</tbody></table>"
        f"<h2>All programs</h2><table><thead>{heads}</thead><tbody>{rows}</tbody></table>"
    )
    return document(f"{contract}: {total} programs", body)


def _row(submission: JudgedSubmission) -> str:
    failed = [each for each in submission.result.outcomes if each.verdict is Verdict.FAIL]
    said = ", ".join(each.case for each in failed)
    if len(failed) == 1:
        said = f"{failed[0].case}: {failed[0].happened}"
    return (
        f'<tr class="{"fail" if failed else "pass"}"><td class="verdict">{escape(submission.name)}</td>'
        f"<td>{escape(submission.language)}</td><td>{submission.result.points:g} of {submission.result.most:g}</td>"
        f"<td>{escape(said)}</td></tr>"
    )
