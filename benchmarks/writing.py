"""Format a document as Markdown tables, one per load."""

from __future__ import annotations

from bothends.bench.report import text
from bothends.bench.results import Document


def tables(document: Document) -> str:
    """Return the command, the host and all figures in Markdown."""
    parts = [f"`{document.command}`", "", text.notes(document), ""]
    for load, entries in text.by_load(document):
        heads, rows = text.table(document, entries)
        lines = [heads, ["---"] * len(heads), *rows]
        parts += [f"## {load}", "", *(f"| {' | '.join(row)} |" for row in lines), ""]
    return "\n".join(parts)
