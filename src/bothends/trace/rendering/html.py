"""Render a trace as a self-contained web page: it needs no network and no other file. Pure.

If the user points at a call or a packet, or selects it with the keyboard, the page highlights its causes and
effects, and shows an explanation beside it.

1. The rows are data: columns of numbers and texts, compressed, from which the script builds the rows in view.
   So the page is small, and it scrolls however many rows there are. What repeats is folded, and unfolded by a
   click; it has no explanation of its own, but shows that of an event like it.
2. All text from programs and peers is escaped when it is inserted into HTML. The script inserts text only
   (textContent), never HTML.
3. The Content-Security-Policy of the page allows only its own script, identified by its hash. If data became
   HTML in spite of rule 2, nothing in it would be executed or loaded.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from bothends.escaping import escape_controls, escape_line
from bothends.foreign_text import markup
from bothends.trace.findings import Finding
from bothends.trace.model import Call, KernelEvent, Packet, ProcessEvent, Socket, Trace, TraceEvent
from bothends.trace.rendering.details import details_of
from bothends.trace.rendering.folding import FoldedRows, Unit
from bothends.trace.rendering.html_assets import STYLE
from bothends.trace.rendering.html_script import SCRIPT
from bothends.trace.rendering.layout import Row

MAX_ROWS: Final = 400_000
PACKET: Final = -1  # instead of a process
MAX_NARROW_LANES: Final = 4  # with more lanes, the page is wider than the screen
MAX_DETAILS: Final = 10_000  # events with an explanation of their own

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
<body{wide}>
<header>
<h1>{title}</h1>
<p>{summary}</p>
</header>
{findings}
<form class="filters" role="search" hidden>
<label>Search <input type="search" id="search" autocomplete="off"></label>
<label>Connection <select id="connection"></select></label>
<label>Process <select id="process"></select></label>
<label>Call <select id="call"></select></label>
<label>Finding <select id="finding"></select></label>
<button type="button" id="unfold" aria-pressed="false">Unfold all</button>
<output id="count"></output>
</form>
<div class="columns">
<main style="--lanes: {lanes}">
<div class="row lanes" id="heads" aria-hidden="true" hidden></div>
<ol aria-label="Calls and packets, in order. Use the arrow keys to move between them.">
</ol>
<noscript>This page needs its script, which builds the rows.</noscript>
</main>
<aside aria-live="polite"><div id="details">
<h2>Explanation</h2>
<p>Point at a call or a packet, or move between them with the arrow keys. The page highlights its causes
and its effects. Press Enter, or click, to keep it selected.</p>
</div></aside>
</div>
<script type="application/octet-stream" id="events">{events}</script>
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
    folded: Mapping[int, Unit | None] | None = None,
) -> str:
    """Return the page as HTML. Shows `MAX_ROWS` rows at most.

    Args:
        trace: what the rows show.
        rows: all rows, also those that are folded.
        findings: listed above the rows.
        title: of the page.
        waits: say what blocked calls wait for.
        folded: the events that are folded, by their numbers; see `folded_events`.
    """
    return Page(trace, rows, folded).render(findings, title, waits)


class Page:
    """The page of a trace: its rows, which take most of the time, and then the rest.

    Args:
        trace, rows, folded: as of `render_page`.
    """

    def __init__(
        self, trace: Trace, rows: Iterable[Row], folded: Mapping[int, Unit | None] | None = None
    ) -> None:
        self._trace = trace
        self._columns = _Columns(trace, folded if folded is not None else {})
        self._lanes = 0
        iterator = iter(rows)
        for row in islice(iterator, MAX_ROWS):
            self._columns.add(row)
            self._lanes = max(self._lanes, len(row.bars))
        omitted = sum(1 for _ in iterator)
        if omitted:
            self._columns.add_text(f"{omitted:,} more rows are not shown")

    def render(
        self, findings: Sequence[Finding] = (), title: str = "bothends trace", waits: Sequence[str] = ()
    ) -> str:
        """Return the page as HTML. The arguments are those of `render_page`."""
        lanes = self._lanes or 1
        digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
        return _PAGE.format(
            hash=f"sha256-{digest}",
            title=markup(title),
            style=STYLE,
            summary=markup(_summary(self._trace, self._columns.shown)),
            findings=_waits(waits) + _findings(findings),
            lanes=lanes,
            wide=' class="wide"' if lanes > MAX_NARROW_LANES else "",
            events=_packed(self._columns.content(findings)),
            script=SCRIPT,
        )


def _packed(content: object) -> str:
    """Return the data of the script: JSON, compressed (zlib), in base64."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), check_circular=False)
    return base64.b64encode(zlib.compress(text.encode("utf-8", "backslashreplace"), 6)).decode()


class _Columns:
    """The rows as columns of numbers, and their texts. The script builds the rows from them.

    What many rows have in common is a `form`: the bars, the lanes and styles of the texts or of the arrow,
    the connection and the process.
    """

    def __init__(self, trace: Trace, folded: Mapping[int, Unit | None]) -> None:
        self.shown: set[int] = set()
        self._trace = trace
        self._folded = folded
        self._forms: dict[tuple[Any, ...], int] = {}
        self._form: list[int] = []  # by row
        self._times: list[int] = []  # by row: units of 100 us since the row before; -1: none
        self._events: list[int | None] = []  # by row: the number, less the one before it; None: no event
        self._texts: list[str] = []  # by row
        self._causes: list[int] = []  # event, number of causes, how far back each is
        self._folds: list[tuple[int, int, str]] = []  # first row, number of rows, text
        self._connections: dict[str, int] = {"": 0}
        self._processes: dict[str, int] = {"": 0}
        self._of_socket: dict[int, int] = {}
        self._of_process: dict[int, int] = {}
        self._time = self._event = 0
        self._open: FoldedRows | None = None  # of the fold that the last row belongs to
        self._begin = 0

    def add(self, row: Row) -> None:
        """Append a row."""
        number = row.event
        is_folded = number is not None and number in self._folded
        if is_folded and self._open is None:
            self._open, self._begin = FoldedRows(), len(self._form)
        elif not is_folded and self._open is not None:
            self._end_fold()
        if number is not None:
            connection, process = self._place(self._trace.event(number))
        else:
            connection = process = 0
        arrow, cells = row.arrow, row.cells
        form: tuple[Any, ...]
        if arrow is not None:
            form = (
                row.bars, row.is_header, connection, process,
                (arrow.from_lane, arrow.to_lane, arrow.style, arrow.part),
            )  # fmt: skip
            text = _one_line(arrow.text) + (f" (lost: {_one_line(arrow.lost)})" if arrow.lost else "")
        elif len(cells) == 1:
            cell = cells[0]
            form = row.bars, row.is_header, connection, process, None, cell.lane, cell.style
            text = cell.text
            if "\n" in text or "\t" in text:
                text = _one_line(text)
        else:
            lanes = tuple(each for cell in cells for each in (cell.lane, cell.style))
            form = row.bars, row.is_header, connection, process, None, *lanes
            text = "\t".join(_one_line(cell.text) for cell in cells)
        self._form.append(self._forms.setdefault(form, len(self._forms)))
        self._texts.append(text)
        if row.at is None:
            self._times.append(-1)
        else:
            time = row.at // 100_000
            self._times.append(time - self._time if time > self._time else 0)
            self._time = time
        if number is None:
            self._events.append(None)
            return
        self._events.append(number - self._event)
        self._event = number
        if number not in self.shown:
            self.shown.add(number)
            if self._open is not None and (unit := self._folded[number]) is not None:
                self._open.add_unit(unit)
            causes = self._trace.causes_of(number)
            if causes:
                self._causes += (number, len(causes), *[number - link.cause for link in causes])

    def add_text(self, text: str) -> None:
        """Append a row with a text only."""
        if self._open is not None:
            self._end_fold()
        form = (), False, 0, 0, None, 0, "note"
        self._form.append(self._forms.setdefault(form, len(self._forms)))
        self._texts.append(text)
        self._times.append(-1)
        self._events.append(None)

    def _end_fold(self) -> None:
        assert self._open is not None
        self._folds.append((self._begin, len(self._form) - self._begin, "… " + self._open.text()))
        self._open = None

    def _place(self, event: TraceEvent | None) -> tuple[int, int]:
        """Return the numbers of the connection and of the process of an event."""
        if type(event) is Call:
            return self._connection(event.socket), self._process(event.process)
        if isinstance(event, Packet):
            number = event.sender if event.sender is not None else event.receiver
            return self._connection(number), PACKET
        if isinstance(event, ProcessEvent):
            return 0, self._process(event.process)
        return (self._connection(event.socket), 0) if isinstance(event, KernelEvent) else (0, 0)

    def _connection(self, number: int | None) -> int:
        if number is None:
            return 0
        found = self._of_socket.get(number)
        if found is None:
            socket = self._trace.sockets.get(number)
            text = connection_text(socket) if socket is not None else ""
            found = self._of_socket[number] = self._connections.setdefault(text, len(self._connections))
        return found

    def _process(self, number: int) -> int:
        found = self._of_process.get(number)
        if found is None:
            process = self._trace.processes.get(number)
            text = f"{process.role} {process.pid}" if process is not None and process.role else ""
            found = self._of_process[number] = self._processes.setdefault(text, len(self._processes))
        return found

    def content(self, findings: Sequence[Finding]) -> dict[str, Any]:
        """Return everything for the script."""
        if self._open is not None:
            self._end_fold()
        own = [number for number in sorted(self.shown) if number not in self._folded][:MAX_DETAILS]
        return {
            "forms": list(self._forms),
            "form": self._form,
            "times": self._times,
            "events": self._events,
            "texts": escape_controls("\n".join(self._texts)),
            "causes": self._causes,
            "folds": self._folds,
            "connections": [_one_line(each) for each in self._connections],
            "processes": [_one_line(each) for each in self._processes],
            "findings": [[_one_line(each.title), each.evidence] for each in findings],
            "details": {number: details_of(self._trace, number) for number in own},
        }


def connection_text(socket: Socket) -> str:
    """Return a connection as a filter names it: both ends, in the same order from either end."""
    if socket.local is None or socket.peer is None:
        return str(socket.local or socket.peer or f"socket {socket.number}")
    return " ↔ ".join(sorted((str(socket.local), str(socket.peer))))


def _one_line(text: str) -> str:
    return escape_line(text).replace("\t", "\\t") if "\n" in text or "\t" in text else text


def _summary(trace: Trace, shown: Collection[int]) -> str:
    kinds = Counter(type(event) for event in trace.events() if event.number in shown)
    calls, packets = kinds[Call], kinds[Packet]
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
