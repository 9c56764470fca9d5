"""Rows that say in words what a trace shows: the waits at its end, and its findings. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bothends.trace.findings.base import Finding
from bothends.trace.rendering.layout import Cell, Row, Style


def comment_rows(found: Sequence[Finding], waits: Sequence[str] = ()) -> list[Row]:
    """Return rows of prose, which are to be wrapped: one for each wait, and those of each finding."""
    rows = [row for text in waits for row in (_row(""), _row(f"waits: {text}", "note"))]
    for finding in found:
        rows += [_row(""), *finding_rows(finding)]
    return rows


def finding_rows(finding: Finding) -> Iterator[Row]:
    """Yield the rows of a finding: its title, what happened, the remedy, and the line to write."""
    yield _row(f"finding: {finding.title}", "reset")
    yield _row(finding.text)
    yield _row(f"Remedy: {finding.remedy}", "data")
    if finding.in_python:
        yield _row(f"In Python: {finding.in_python}", "quiet")


def _row(text: str, style: Style = "") -> Row:
    return Row(None, (), (Cell(0, text, style, wraps=True),))
