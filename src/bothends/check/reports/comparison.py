"""Compare two runs of a class: what each program has gained and lost. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bothends.check.batch.grading import JudgedSubmission
from bothends.check.case import Verdict
from bothends.check.reports.html import document
from bothends.foreign_text import csv_cell, markup


@dataclass(frozen=True, slots=True)
class Change:
    """A program in two runs: its points before and after, or None if it is missing in one.

    `fixed`, `broken`: cases that failed before and do not any more, and the reverse.
    """

    name: str
    before: float | None
    after: float | None
    fixed: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()

    @property
    def difference(self) -> float:
        """The points gained; less than 0 if points were lost."""
        return (self.after or 0.0) - (self.before or 0.0)

    @property
    def is_change(self) -> bool:
        """Whether anything differs."""
        return self.before != self.after or bool(self.fixed or self.broken)

    @property
    def columns(self) -> tuple[str, str, str, str, str]:
        """Name, points before and after, fixed and broken cases, as text."""
        before, after = ("" if each is None else f"{each:g}" for each in (self.before, self.after))
        return self.name, before, after, ", ".join(self.fixed), ", ".join(self.broken)


HEADS = ("name", "before", "after", "fixed", "broken")


def compare(before: Mapping[str, JudgedSubmission], after: Sequence[JudgedSubmission]) -> list[Change]:
    """Return the changes from one run to another, those of missing programs last.

    `before`: the earlier submissions by their names.
    """
    changes = [_change(each, before.get(each.name)) for each in after]
    names = {each.name for each in after}
    gone = [Change(each.name, each.result.points, None) for each in before.values() if each.name not in names]
    return changes + gone


def _change(now: JudgedSubmission, then: JudgedSubmission | None) -> Change:
    if then is None:
        return Change(now.name, None, now.result.points)
    failed_now, failed_then = _failed(now), _failed(then)
    return Change(
        now.name,
        then.result.points,
        now.result.points,
        tuple(case for case in failed_then if case not in failed_now),
        tuple(case for case in failed_now if case not in failed_then),
    )


def _failed(one: JudgedSubmission) -> list[str]:
    return [each.case for each in one.result.outcomes if each.verdict is Verdict.FAIL]


def as_csv(changes: Sequence[Change]) -> str:
    """Return the changes as a CSV table."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(HEADS)
    for each in changes:
        writer.writerow(map(csv_cell, each.columns))
    return buffer.getvalue()


def as_html(changes: Sequence[Change], contract: str) -> str:
    """Return the changes as a self-contained HTML page."""
    heads = "".join(f"<th>{head}</th>" for head in HEADS)
    rows = "".join(
        f'<tr class="{_css_class(each)}">'
        + "".join(
            f"<td{' class=verdict' if number == 0 else ''}>{markup(text)}</td>"
            for number, text in enumerate(each.columns)
        )
        + "</tr>"
        for each in changes
    )
    better, worse = sum(each.difference > 0 for each in changes), sum(each.difference < 0 for each in changes)
    title = f"{contract}: {better} better, {worse} worse, of {len(changes)} programs"
    body = f"<h1>{markup(title)}</h1><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return document(title, body)


def _css_class(change: Change) -> str:
    return "pass" if change.difference > 0 else "fail" if change.difference < 0 else "skip"
