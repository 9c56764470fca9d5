"""The sockets of the programs of a run, and what they wait for: as `bothends sockets` and `bothends why`.

Only the processes of the run are read, and only the network of the run: nothing else of the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from bothends.errors import BothendsError
from bothends.lab.messages import Looked
from bothends.socket_table import read_table
from bothends.socket_table.rows import COLUMNS, cells
from bothends.why import make_report, take_snapshot
from bothends.why.explain import Subject
from bothends.why.report import text_lines

MAX_SOCKETS: Final = 500  # of one answer
_MAX_LINES: Final = 100


def look(pids: Sequence[int]) -> Looked:
    """Return the sockets of these processes, and the report about them."""
    if not pids:
        return Looked(list(COLUMNS), [], [], ["no program is running"])
    try:
        table = read_table(pids, with_ownerless=True)
        sockets = [cells(each) for each in table.sockets[:MAX_SOCKETS]]
        report = make_report(take_snapshot(only=pids), Subject("", pids=tuple(pids)))
    except BothendsError:  # a process has exited in between
        return Looked(list(COLUMNS), [], [], ["a program has just exited"])
    report = replace(report, notes=[])
    found = [(style, text) for text, style in text_lines(report)][:_MAX_LINES]
    notes = (
        [] if len(table.sockets) <= MAX_SOCKETS else [f"{len(table.sockets) - MAX_SOCKETS:,} more sockets"]
    )
    return Looked(list(COLUMNS), sockets, found, notes)
