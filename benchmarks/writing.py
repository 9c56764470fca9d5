"""How the figures are written down: a page of tables, one for each load."""

from __future__ import annotations

from bothends.bench.report import text
from bothends.bench.results import Document


def tables(document: Document) -> str:
    """The command, the machine, and every figure, in Markdown."""
    parts = [f"`{document.command}`", "", text.notes(document), ""]
    for load, entries in text.by_load(document):
        heads, rows = text.table(document, entries)
        drawn = [heads, ["---"] * len(heads), *rows]
        parts += [f"## {load}", "", *(f"| {' | '.join(row)} |" for row in drawn), ""]
    return "\n".join(parts)
