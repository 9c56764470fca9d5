"""Render a document as a self-contained HTML page, without external scripts, style sheets or fonts."""

from __future__ import annotations

from collections.abc import Sequence

from bothends.bench.report import plots, text
from bothends.bench.results import BenchEntry, Document
from bothends.foreign_text import markup

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 64rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
code { font-size: .9em; background: #f3f3f3; padding: .1em .3em; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; vertical-align: top; }
tr { border-bottom: 1px solid #e4e4e4; } td.n, th.n { text-align: right; }
td.n, td:first-child { white-space: nowrap; }
.bad { color: #a33d00; } svg { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
footer, .aside { color: #555; font-size: .9rem; } footer { margin-top: 2rem; }
"""


def render_html(document: Document) -> str:
    """Render a document as an HTML page."""
    entries = document.entries
    title = (
        entries[0].target if len(entries) == 1 else f"{len({each.name for each in entries})} servers compared"
    )
    parts = [f"<h1>{markup(title)}</h1>", f"<p><code>{markup(document.command)}</code></p>"]
    if document.knee:
        parts += ["<h2>Latency against rate</h2>", plots.saturation(document)]
        parts += [f"<p>{markup(note)}</p>" for note in document.notes]
    if len(entries) == 1:
        parts += _single_entry(entries[0])
    else:
        parts += _comparison(document)
    parts += _notes(document)
    body = "\n".join(parts)
    head = "<meta charset=utf-8><meta name=viewport content='width=device-width'>"
    head += f"<title>{markup(title)}</title><style>{_STYLE}</style>"
    return f"<!doctype html>\n<html lang=en><head>{head}</head>\n<body>\n{body}\n</body></html>\n"


def _single_entry(entry: BenchEntry) -> list[str]:
    rows = text.summary_lines(entry)
    cells = "".join(f"<tr><th>{markup(label)}</th><td>{markup(value)}</td></tr>" for label, value in rows)
    parts = [f"<h2>Measurement</h2><div class=wide><table>{cells}</table></div>"]
    if any(each.uncorrected.percentiles_us for each in entry.rounds):
        parts += ["<h2>Latency by percentile</h2>", plots.percentiles([entry], entry.load.title)]
    transfers = [each.bulk for each in entry.rounds if each.bulk is not None and each.bulk.samples]
    if transfers:
        parts += ["<h2>The transfer over time</h2>", plots.bulk(transfers[-1], entry.load.title)]
    if plots.has_heat_map(entry):
        parts += ["<h2>Latency over time</h2>", plots.heat_map(entry, text.heat_map_title(entry))]
    return parts


def _comparison(document: Document) -> list[str]:
    parts = []
    for load, entries in text.by_load(document):
        shown = [each for each in entries if each.rounds]
        parts.append(f"<h2>{markup(load)}</h2>")
        if shown and not shown[0].load.is_idle:
            parts.append(plots.throughput(shown, "Requests per second"))
        heads, rows = text.table(document, shown)
        columns = [index for index, head in enumerate(heads) if head != "load"]
        heads, rows = tuple(heads[c] for c in columns), [[row[c] for c in columns] for row in rows]
        numeric = [all(_is_number(row[index]) for row in rows) for index in range(len(heads))]
        parts.append(f"<div class=wide><table>{_table(heads, rows, numeric)}</table></div>")
        if reasons := text.skip_reasons(entries):
            parts.append(f"<p class=aside>Not measured: {markup(reasons)}.</p>")
        if shown and not shown[0].load.is_idle:
            title = f"Latency by percentile, the {min(len(shown), plots.MAX_LINES)} fastest"
            parts.append(plots.percentiles(shown[: plots.MAX_LINES], title))
    return parts


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    classes = ["" if not each else " class=n" for each in numeric]

    def row_of(cells: Sequence[str], tag: str) -> str:
        rendered = (f"<{tag}{class_}>{markup(c)}</{tag}>" for c, class_ in zip(cells, classes, strict=True))
        return f"<tr>{''.join(rendered)}</tr>"

    return row_of(heads, "th") + "".join(row_of(row, "td") for row in rows)


def _notes(document: Document) -> list[str]:
    rows = "".join(f"<tr><th>{markup(n)}</th><td>{markup(v)}</td></tr>" for n, v in document.machine.items())
    notes = [*(() if document.knee else document.notes), *text.remarks(document)]
    paragraphs = [f"<p>{markup(note)}</p>" for note in notes]
    are_all_compared = not any(each.load.verified for each in document.entries)
    made = f"Measured {document.made}.{' Every response was compared byte for byte.' * are_all_compared}"
    footer = f"<footer>{markup(made)}</footer>"
    return ["<h2>Host</h2>", f"<div class=wide><table>{rows}</table></div>", *paragraphs, footer]


def _is_number(cell: str) -> bool:
    return not cell or cell[0].isdigit() or cell == "-"
