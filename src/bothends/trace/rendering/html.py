"""A trace as one web page, which needs nothing else: no network, no other file. Pure.

Whoever points at a call or a packet, or reaches it with the keyboard, sees what it came of and what came of
it light up, and what it means beside it.

1. Everything that a program or a peer chose is escaped where it becomes HTML, and what the script shows it
   shows as text (textContent), never as HTML.
2. The page's policy (Content-Security-Policy) lets only its own script run, known by its hash: if some data
   did become HTML, nothing in it would run or load.
3. What the script needs is JSON in an element of its own, with every `<` written as a number.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from bothends.trace.findings import Finding
from bothends.trace.model import Call, Packet, ProcessEvent, Trace, TraceEvent
from bothends.trace.rendering import explain, formatting
from bothends.trace.rendering.html_assets import SCRIPT, STYLE
from bothends.trace.rendering.layout import Row

MAX_ROWS: Final = 20_000  # rows: with more no browser is quick

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
<div class="both">
<main style="--lanes: {lanes}">
<ol aria-label="What happened, in order. The arrow keys go from one to the next.">
{rows}
</ol>
</main>
<aside aria-live="polite"><div id="details">
<h2>What it means</h2>
<p>Point at a call or a packet, or go from one to the next with the arrow keys: what it came of, and what
came of it, lights up. Enter, or a click, keeps it.</p>
</div></aside>
</div>
<script type="application/json" id="events">{events}</script>
<script>{script}</script>
</body>
</html>
"""


def render_page(
    trace: Trace, rows: Iterable[Row], findings: Sequence[Finding] = (), title: str = "bothends trace"
) -> str:
    """The whole page."""
    iterator = iter(rows)
    drawn = list(islice(iterator, MAX_ROWS))
    left = sum(1 for _ in iterator)
    shown = {row.event for row in drawn if row.event is not None}
    lanes = max((len(row.bars) for row in drawn), default=1)
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    named: set[int] = set()
    lines = [line for row in drawn for line in _row(row, named)]
    if left:
        lines.append(f'<li class="row"><span class="cell note">{left} more rows are not shown</span></li>')
    return _PAGE.format(
        hash=f"sha256-{digest}",
        title=html.escape(title),
        style=STYLE,
        summary=html.escape(_summary(trace, shown)),
        findings=_findings(findings),
        lanes=lanes,
        rows="\n".join(lines),
        events=_json({number: _details(trace, number, shown) for number in sorted(shown)}),
        script=SCRIPT,
    )


def _summary(trace: Trace, shown: Collection[int]) -> str:
    events = [event for event in trace.events() if event.number in shown]
    calls = sum(isinstance(event, Call) for event in events)
    packets = sum(isinstance(event, Packet) for event in events)
    parts = [f"{calls} calls", f"{packets} packets" if packets else "no packets"]
    parts += [f"{trace.dropped} earlier moments are not kept"] if trace.dropped else []
    return ", ".join(parts + trace.notes)


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    items = []
    for finding in findings:
        links = " ".join(
            f'<a href="#e{number}">{index}</a>' for index, number in enumerate(finding.evidence[:12], 1)
        )
        items.append(
            f"<li><strong>{html.escape(finding.title)}</strong> {html.escape(finding.text)}<br>"
            f'<span class="remedy">{html.escape(finding.remedy)}</span> '
            f'<span class="seen">seen at {links}</span></li>'
        )
    return f'<section class="findings"><h2>Findings</h2><ul>{"".join(items)}</ul></section>'


def _row(row: Row, named: set[int]) -> Iterator[str]:
    """A row's HTML. The first row of an event has its name, for links."""
    who = ""
    if row.event is not None:
        name = "" if row.event in named else f' id="e{row.event}"'
        named.add(row.event)
        who = f'{name} data-event="{row.event}" tabindex="-1"'
    yield f'<li class="{"row head" if row.is_header else "row"}"{who}>'
    yield f'<span class="time">{"" if row.at is None else f"{row.at / 1e9:.4f}"}</span>'
    if not row.is_header:
        for lane, bar in enumerate(row.bars):
            if bar != "none":
                yield f'<i class="bar {bar}" style="grid-column:{lane + 2}"></i>'
    for cell in row.cells:
        style = f" {cell.style}" if cell.style else ""
        yield f'<span class="cell{style}" style="grid-column:{cell.lane + 2}">{html.escape(cell.text)}</span>'
    if row.arrow is not None:
        left, right = sorted((row.arrow.from_lane, row.arrow.to_lane))
        way = "right" if row.arrow.from_lane == left else "left"
        part = "" if row.arrow.part == "whole" else f" {row.arrow.part}"
        lost = f" (lost: {html.escape(row.arrow.lost)})" if row.arrow.lost else ""
        yield (
            f'<span class="arrow {way} {row.arrow.style}{part}" style="grid-column:{left + 2} / {right + 2}">'
            f"<b>{html.escape(row.arrow.text)}{lost}</b></span>"
        )
    yield "</li>"


def _details(trace: Trace, number: int, shown: set[int]) -> dict[str, Any]:
    """What the script shows of an event: plain text, all of it."""
    event = trace.event(number)
    found: dict[str, Any] = _describe(trace, event) if event is not None else {"title": "", "means": ""}
    found["from"] = [link.cause for link in trace.causes_of(number) if link.cause in shown]
    found["to"] = [link.effect for link in trace.effects_of(number) if link.effect in shown]
    return found


def _describe(trace: Trace, event: TraceEvent) -> dict[str, Any]:
    match event:
        case Call():
            entry = explain.CALLS.get(event.name)
            process = trace.processes.get(event.process)
            return {
                "title": formatting.call_text(event),
                "who": f"{process.role}, process {process.pid}, thread {event.thread}" if process else "",
                "means": explain.explain_call(event, trace),
                "general": entry.summary if entry else "",
                "c": entry.prototype if entry else "",
                "python": entry.python if entry else "",
                "arguments": explain.named_arguments(event),
                "data": formatting.quoted(event.data, event.size or len(event.data), 1000)
                if event.data
                else "",
                "lasted": formatting.duration(event.duration) if event.until is not None else "not ended",
            }
        case Packet():
            return {
                "title": formatting.packet_text(event),
                "who": f"{event.source} → {event.destination}",
                "means": explain.explain_packet(event),
                "arguments": _packet_fields(event),
                "data": formatting.quoted(event.data, event.size, 1000) if event.data else "",
            }
        case ProcessEvent():
            process = trace.processes.get(event.process)
            return {"title": event.text, "who": f"process {process.pid}" if process else "", "means": ""}


def _packet_fields(packet: Packet) -> list[tuple[str, str]]:
    found = [("length", str(packet.length)), ("data", f"{packet.size} bytes")]
    if packet.protocol == "tcp":
        found += [("sequence", str(packet.sequence)), ("acknowledges", str(packet.acknowledged))]
        found += [("window", str(packet.window)), ("interface", packet.interface)]
    return found


def _json(value: object) -> str:
    # `</script>` can't end the element, nor `<!--` change how it is read, when there is no `<`.
    return json.dumps(value).replace("<", "\\u003c")
