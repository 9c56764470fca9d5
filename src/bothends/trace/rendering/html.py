"""Render a trace as a self-contained web page: it needs no network and no other file. Pure.

If the user points at a call or a packet, or selects it with the keyboard, the page highlights its causes and
effects, and shows an explanation beside it.

1. All text from programs and peers is escaped when it is inserted into HTML. The script inserts text only
   (textContent), never HTML.
2. The Content-Security-Policy of the page allows only its own script, identified by its hash. If data became
   HTML in spite of rule 1, nothing in it would be executed or loaded.
3. The data of the script is JSON in its own element, with `<` written as an escape sequence.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from bothends.foreign_text import markup
from bothends.trace.findings import Finding
from bothends.trace.model import Call, Packet, Trace
from bothends.trace.rendering.details import details_of
from bothends.trace.rendering.html_assets import SCRIPT, STYLE
from bothends.trace.rendering.layout import Row

MAX_ROWS: Final = 20_000  # with more, browsers are slow

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src '{hash}'; base-uri 'none';
  form-action 'none'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p>{summary}</p>
</header>
{findings}
<div class="columns">
<main style="--lanes: {lanes}">
<ol aria-label="Calls and packets, in order. Use the arrow keys to move between them.">
{rows}
</ol>
</main>
<aside aria-live="polite"><div id="details">
<h2>Explanation</h2>
<p>Point at a call or a packet, or move between them with the arrow keys. The page highlights its causes
and its effects. Press Enter, or click, to keep it selected.</p>
</div></aside>
</div>
<script type="application/json" id="events">{events}</script>
<script>{script}</script>
</body>
</html>
"""


def render_page(
    trace: Trace,
    rows: Iterable[Row],
    findings: Sequence[Finding] = (),
    title: str = "bothends trace",
    waits: Sequence[str] = (),
) -> str:
    """Return the page as HTML. Shows `MAX_ROWS` rows at most. `waits` say what blocked calls wait for."""
    iterator = iter(rows)
    drawn = list(islice(iterator, MAX_ROWS))
    omitted = sum(1 for _ in iterator)
    shown = {row.event for row in drawn if row.event is not None}
    lanes = max((len(row.bars) for row in drawn), default=1)
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    with_id: set[int] = set()
    lines = [line for row in drawn for line in _row(row, with_id)]
    if omitted:
        lines.append(f'<li class="row"><span class="cell note">{omitted} more rows are not shown</span></li>')
    return _PAGE.format(
        hash=f"sha256-{digest}",
        title=markup(title),
        style=STYLE,
        summary=markup(_summary(trace, shown)),
        findings=_waits(waits) + _findings(findings),
        lanes=lanes,
        rows="\n".join(lines),
        events=_json({number: details_of(trace, number, shown) for number in sorted(shown)}),
        script=SCRIPT,
    )


def _summary(trace: Trace, shown: Collection[int]) -> str:
    events = [event for event in trace.events() if event.number in shown]
    calls = sum(isinstance(event, Call) for event in events)
    packets = sum(isinstance(event, Packet) for event in events)
    parts = [f"{calls} calls", f"{packets} packets" if packets else "no packets"]
    parts += [f"{trace.dropped} earlier events were dropped"] if trace.dropped else []
    return ", ".join(parts + trace.notes)


def _waits(waits: Sequence[str]) -> str:
    if not waits:
        return ""
    items = "".join(f"<li>{markup(each)}</li>" for each in waits)
    return f'<section class="findings"><h2>Waits</h2><ul>{items}</ul></section>'


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    return f'<section class="findings"><h2>Findings</h2>{_finding_list(findings)}</section>'


def _finding_list(findings: Sequence[Finding]) -> str:
    items = []
    for finding in findings:
        links = " ".join(
            f'<a href="#e{number}">{index}</a>' for index, number in enumerate(finding.evidence[:12], 1)
        )
        lines = [("In C", finding.in_c), ("In Python", finding.in_python)]
        code = "".join(f"<br>{name}: <code>{markup(line)}</code>" for name, line in lines if line)
        basis = f" (inferred: {finding.basis})" if finding.certainty == "inferred" else ""
        items.append(
            f"<li><strong>{markup(finding.title)}</strong> {markup(finding.text + basis)}<br>"
            f'<span class="remedy">{markup(finding.remedy)}</span> '
            f'<span class="evidence">Evidence: {links}</span>{code}'
            f"{_finding_list(finding.consequences) if finding.consequences else ''}</li>"
        )
    return f"<ul>{''.join(items)}</ul>"


def _row(row: Row, with_id: set[int]) -> Iterator[str]:
    """Return a row as HTML. The first row of an event has an id, for links to it."""
    attributes = ""
    if row.event is not None:
        identifier = "" if row.event in with_id else f' id="e{row.event}"'
        with_id.add(row.event)
        attributes = f'{identifier} data-event="{row.event}" tabindex="-1"'
    yield f'<li class="{"row lanes" if row.is_header else "row"}"{attributes}>'
    yield f'<span class="time">{"" if row.at is None else f"{row.at / 1e9:.4f}"}</span>'
    if not row.is_header:
        for lane, bar in enumerate(row.bars):
            if bar != "none":
                yield f'<i class="bar {bar}" style="grid-column:{lane + 2}"></i>'
    for cell in row.cells:
        style = f" {cell.style}" if cell.style else ""
        yield f'<span class="cell{style}" style="grid-column:{cell.lane + 2}">{markup(cell.text)}</span>'
    if row.arrow is not None:
        left, right = sorted((row.arrow.from_lane, row.arrow.to_lane))
        direction = "right" if row.arrow.from_lane == left else "left"
        part = "" if row.arrow.part == "whole" else f" {row.arrow.part}"
        lost = f" (lost: {markup(row.arrow.lost)})" if row.arrow.lost else ""
        yield (
            f'<span class="arrow {direction} {row.arrow.style}{part}" '
            f'style="grid-column:{left + 2} / {right + 2}">'
            f"<b>{markup(row.arrow.text)}{lost}</b></span>"
        )
    yield "</li>"


def _json(value: object) -> str:
    # Without `<`, the data contains neither `</script>`, which would end the element, nor `<!--`.
    return json.dumps(value).replace("<", "\\u003c")
