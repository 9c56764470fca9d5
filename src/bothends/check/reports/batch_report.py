"""Reports on a batch: CSV for a spreadsheet, and an HTML page with the most common failures. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import quote

from bothends.check.batch.grading import JudgedSubmission
from bothends.check.case import Verdict
from bothends.check.reports.html import as_html as render_page
from bothends.check.reports.html import document
from bothends.foreign_text import csv_cell, markup

_PLACE: Final = re.compile(r" at line \d+ of .+(?= is not handled)|(?<=Python 3: )line \d+: ")

STUDENTS_FOLDER: Final = "students"
"""The folder with a page for each program, beside the page about the batch."""


def as_csv(submissions: Sequence[JudgedSubmission]) -> str:
    """Return a CSV table: a row for each submission with its points and the verdict of each case."""
    cases = list(dict.fromkeys(each.case for one in submissions for each in one.result.outcomes))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["name", "language", "points", "most", "failed", "remark", *map(csv_cell, cases)])
    for one in submissions:
        verdicts = {each.case: each.verdict.value for each in one.result.outcomes}
        failed = one.result.counts[Verdict.FAIL]
        points = [f"{one.result.points:g}", f"{one.result.max_points:g}", str(failed)]
        row = [one.name, one.language, *points, one.remark, *(verdicts.get(case, "") for case in cases)]
        writer.writerow(map(csv_cell, row))
    return buffer.getvalue()


def common_failures(submissions: Sequence[JudgedSubmission]) -> list[tuple[str, str, int]]:
    """Return (case, likely cause, number of submissions that failed it), most common first.

    The place of an exception is left out of its cause, because it differs between programs.
    """
    failed = Counter(
        (each.case, _PLACE.sub("", each.likely_cause))
        for one in submissions
        for each in one.result.outcomes
        if each.verdict is Verdict.FAIL
    )
    return [(case, mistake, count) for (case, mistake), count in failed.most_common()]


def as_html(submissions: Sequence[JudgedSubmission], contract: str) -> str:
    """Return a self-contained HTML page about a batch."""
    total = len(submissions)
    passed = sum(not one.result.failed for one in submissions)
    failures = "".join(
        f"<tr><td>{count}</td><td><code>{markup(case)}</code></td><td>{markup(mistake)}</td></tr>"
        for case, mistake, count in common_failures(submissions)
    )
    rows = "".join(map(_row, submissions))
    heads = "<tr><th>name</th><th>language</th><th>points</th><th>failed cases</th><th>remark</th></tr>"
    body = (
        f"<h1>{markup(contract)}: {passed} of {total} programs pass every case</h1>"
        "<h2>Most common mistakes</h2>"
        f"<table><thead><tr><th>programs</th><th>case</th><th>likely cause</th></tr></thead>"
        f"<tbody>{failures or '<tr><td>0</td><td>-</td><td>none</td></tr>'}</tbody></table>"
        f"<h2>All programs</h2><table><thead>{heads}</thead><tbody>{rows}</tbody></table>"
    )
    return document(f"{contract}: {total} programs", body)


def as_student_html(submission: JudgedSubmission) -> str:
    """Return the page for one program: its own results only, so that it can be given to its author."""
    title = f"{submission.name}: {submission.language}" if submission.language else submission.name
    notes = [submission.remark, *submission.result.notes] if submission.remark else submission.result.notes
    return render_page(replace(submission.result, program=title, notes=tuple(notes)))


def page_link(name: str) -> str:
    """Return the address of a program's page, relative to the page about the batch."""
    return f"{STUDENTS_FOLDER}/{quote(name, errors='replace')}.html"


def _row(submission: JudgedSubmission) -> str:
    failed = [each for each in submission.result.outcomes if each.verdict is Verdict.FAIL]
    summary = ", ".join(each.case for each in failed)
    if len(failed) == 1:
        summary = f"{failed[0].case}: {failed[0].happened}"
    points = f"{submission.result.points:g} of {submission.result.max_points:g}"
    return (
        f'<tr class="{"fail" if failed else "pass"}"><td class="verdict">'
        f'<a href="{markup(page_link(submission.name))}">{markup(submission.name)}</a></td>'
        f"<td>{markup(submission.language)}</td><td>{points}</td><td>{markup(summary)}</td>"
        f"<td>{markup(submission.remark)}</td></tr>"
    )
