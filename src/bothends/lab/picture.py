"""The timeline of a run as it grows: points in, rows and explanations out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from bothends.escaping import escape_line
from bothends.lab.messages import Reply, Rows, Waits
from bothends.lab.sandboxed import SandboxedProgram
from bothends.trace.capture.tracees import TracedProgram
from bothends.trace.findings import Finding
from bothends.trace.findings.base import TraceIndex
from bothends.trace.model import Call, Point, Trace
from bothends.trace.rendering.details import details_of
from bothends.trace.rendering.layout import Filter, Layout, Row, WaitArrow
from bothends.trace.session import ORDER_MARGIN
from bothends.trace.socket_states import SocketState, SocketStateTracker
from bothends.trace.waits.graph import WaitsAtEnd
from bothends.trace.waits.sentences import sentences, wait_arrows

MAX_ROWS: Final = 4_000  # of one run: with more, the page is slow
_BATCH_ROWS: Final = 200
_BATCH_TIME: Final = 0.03  # seconds
_STALL_NS: Final = 2_000_000_000  # nanoseconds: what is blocked for longer is explained while nothing moves
_HANG_NS: Final = 1_000_000_000  # the same, at the end


class Picture:
    """Sends the rows of a trace in batches. Its methods are the callbacks of a `TraceSession`.

    Args:
        roles: the lanes to reserve.
        send: called with `Rows` and `Waits`.
        untraced: the name of a lane behind those, for what `add_untraced` is given; "" for none.
    """

    def __init__(
        self, trace: Trace, roles: Sequence[str], send: Callable[[Reply], None], untraced: str = ""
    ) -> None:
        self._trace = trace
        self._roles = roles
        self._send = send
        self._layout = Layout(trace, Filter(hide_quiet_calls=True), roles=roles, untraced=untraced)
        self._programs: Sequence[tuple[SandboxedProgram, TracedProgram]] = ()
        self._rows: list[dict[str, Any]] = []
        self._shown: set[int] = set()
        self._changed: set[int] = set()
        self._sockets = SocketStateTracker(trace)
        self._known: dict[int, dict[str, Any]] = {}  # what the page knows of a socket
        self._began = 0
        self._count = 0
        self._sent_at = 0.0
        self._is_stalled = False
        self._drawn_waits: list[WaitArrow] = []  # nothing has moved since they were drawn
        self._untraced: deque[tuple[int, str]] = deque()  # not drawn yet: its time, and its text

    def set_lines(self, programs: Sequence[tuple[SandboxedProgram, TracedProgram]]) -> None:
        """Set the programs whose calls have source lines, in the order of the page."""
        self._programs = programs

    def add_untraced(self, at: int, text: str) -> None:
        """Add what a program that is not traced did, at a time in nanoseconds. Safe from every thread."""
        self._untraced.append((at, text))

    def _write_untraced(self, until: int) -> None:
        """Add what was done before a time."""
        while self._untraced and self._untraced[0][0] < until:
            for row in self._layout.untraced_row(*self._untraced.popleft()):
                self._add(row)

    def write(self, point: Point) -> None:
        """Add a point of the trace."""
        if self._untraced:
            self._write_untraced(point.at)
        if self._is_stalled:
            self._is_stalled = False
            self._drawn_waits = []
            self._send(Waits([]))
        self._began = self._began or point.at // 1000
        self._sockets.add(point)
        rows = list(self._layout.rows(point))
        own = next((row for row in rows if row.event == point.event.number), rows[-1] if rows else None)
        for row in rows:
            self._add(row, has_states=row is own)
        if len(self._rows) >= _BATCH_ROWS or time.monotonic() - self._sent_at > _BATCH_TIME:
            self._flush()

    def idle(self) -> None:
        """Add the calls that are blocked, and send everything."""
        self._write_untraced(time.time_ns() - 2 * ORDER_MARGIN)
        for row in self._layout.pending():
            self._add(row)
        self._flush()

    def on_stall(self, _requested: bool) -> None:
        """Say which calls wait for which program, while nothing moves."""
        now = time.time_ns()
        found, arrows = self._waits(now, _STALL_NS)
        for row in self._layout.wait_rows(arrows, now):
            self._add(row)
        self._flush()
        self._is_stalled = bool(found)
        self._drawn_waits = arrows
        self._send(Waits(found))

    def end(self) -> None:
        """Send what is left. Called once, when the run is over."""
        self.idle()
        self._write_untraced(time.time_ns())
        self._flush()
        if self._count > MAX_ROWS:
            self._trace.notes.append(f"{self._count - MAX_ROWS:,} more rows are not shown")

    def waits_at_end(self) -> list[str]:
        """Return which calls waited for which program when the run was ended, and draw it."""
        found, arrows = self._waits(None, _HANG_NS)
        known = {each[:3] for each in self._drawn_waits}
        for row in self._layout.wait_rows(
            [each for each in arrows if each[:3] not in known], self._trace.frozen_at or 0
        ):
            self._add(row)
        self._flush()
        return found

    def _waits(self, now: int | None, min_age: int) -> tuple[list[str], list[WaitArrow]]:
        waits = WaitsAtEnd(TraceIndex(self._trace), now)
        return sentences(waits, min_age), wait_arrows(waits, min_age)

    def _add(self, row: Row, *, has_states: bool = False) -> None:
        self._count += 1
        if self._count > MAX_ROWS:
            return
        shown: dict[str, Any] = {
            "at": row.at,
            "bars": row.bars,
            "cells": [(each.lane, each.text, each.style) for each in row.cells],
            "event": row.event,
        }
        if row.is_header:
            shown["header"] = True
        if row.arrow is not None:
            arrow = row.arrow
            shown["arrow"] = (
                arrow.from_lane, arrow.to_lane, arrow.text, arrow.style, arrow.part, arrow.lost,
            )  # fmt: skip
        if has_states and row.event is not None:
            states = [self._sockets.state(each) for each in sorted(self._sockets.changed)]
            shown["states"] = [_state_to_json(each) for each in states if each is not None]
            self._sockets.changed.clear()
        self._rows.append(shown)
        if row.event is not None:
            self._shown.add(row.event)
            self._changed.add(row.event)

    def _flush(self) -> None:
        self._sent_at = time.monotonic()
        if not self._rows:
            return
        events = {number: self._details(number) for number in self._changed}
        rows, self._rows = self._rows, []
        self._changed = set()
        self._send(Rows(rows, events, self._new_sockets(rows), self._began))

    def _new_sockets(self, rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
        """Return what has become known of the sockets whose states are in rows."""
        found = {}
        for number in {state[0] for row in rows for state in row.get("states", ())}:
            socket, state = self._trace.sockets.get(number), self._sockets.state(number)
            if socket is None or state is None or not socket.is_shown:
                continue
            process = self._trace.processes.get(state.process or 0)
            known = {
                "role": process.role if process is not None else "",
                "family": socket.family,
                "kind": socket.kind,
                "local": escape_line(str(socket.local or "")),
                "peer": escape_line(str(socket.peer or "")),
                "listens": socket.is_listener,
            }
            if self._known.get(number) != known:
                found[number] = self._known[number] = known
        return found

    def _details(self, number: int) -> dict[str, Any]:
        details = details_of(self._trace, number)
        causes, effects = self._trace.causes_of(number), self._trace.effects_of(number)
        details["causes"] = [link.cause for link in causes if link.cause in self._shown]
        details["effects"] = [link.effect for link in effects if link.effect in self._shown]
        event = self._trace.event(number)
        if isinstance(event, Call):
            details["program"], details["line"] = self._source_of(event)
        return details

    def _source_of(self, call: Call) -> tuple[int | None, int | None]:
        """Return the program that has made a call, by its place on the page, and the line."""
        process = self._trace.processes.get(call.process)
        role = process.role.partition("/")[0] if process is not None else ""
        if role not in self._roles:
            return None, None
        place = list(self._roles).index(role)
        program, traced = self._programs[place]
        if program.lines is None:
            return place, None
        first, inner = program.first_ids
        thread = inner if call.thread == first else traced.parser.inner_ids.get(call.thread)
        return place, program.lines.line_at(thread, call.at) if thread is not None else None


def _state_to_json(state: SocketState) -> tuple[Any, ...]:
    """Return a state for the page, which knows the order: moment.js."""
    return (
        state.socket, state.tcp, state.sent, state.received, state.unacknowledged, state.unread, state.queued,
        state.is_closed,
    )  # fmt: skip


def finding_to_json(finding: Finding) -> dict[str, Any]:
    """Return a finding for the page, with its consequences."""
    return {
        "rule": finding.rule,
        "title": finding.title,
        "text": finding.text,
        "remedy": finding.remedy,
        "evidence": finding.evidence[:12],
        "inferred": (finding.basis or "from the events") if finding.certainty == "inferred" else "",
        "in_c": finding.in_c,
        "in_python": finding.in_python,
        "consequences": [finding_to_json(each) for each in finding.consequences],
    }
