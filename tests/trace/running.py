"""Run programs under a `TraceSession` in the test's process, so that tests can inspect the trace."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bothends.errors import Unavailable
from bothends.trace import trace_file
from bothends.trace.capture.packets import Capture
from bothends.trace.findings import Finding, run_rules
from bothends.trace.model import Call, Packet, Point, Trace
from bothends.trace.opening import open_trace
from bothends.trace.session import TraceSession
from tests.trace.sources import open_call_source

PYTHON = [sys.executable, "-I", "-S"]  # without site-packages, startup takes a third of the time


def has_packets() -> bool:
    """Return whether packets can be captured here."""
    try:
        Capture().close()
    except Unavailable:
        return False
    return True


def run_traced(
    *commands: Sequence[str], server: Sequence[str] = (), packets: bool = True, stdin_text: str = ""
) -> Trace:
    """Trace programs. `server` starts first; `{port}` in the other commands is its port.

    `stdin_text` is the standard input of the first command.
    """
    for _ in range(3):
        trace = _run_once(commands, server, packets=packets, stdin_text=stdin_text)
        if not trace.notes:
            return trace
    pytest.skip(f"there is too much traffic on this machine: {trace.notes}")


def _run_once(
    commands: Sequence[Sequence[str]], server: Sequence[str], *, packets: bool, stdin_text: str
) -> Trace:
    points: list[Point] = []
    with open_call_source() as source:
        session = TraceSession(points.append, bpf=source)
        if server:
            session.add_server("server", server)
        for number, command in enumerate(commands):
            role = f"client {number + 1}" if number else "client"
            session.add_client(role, command, inherit_stdin=not number)
        session.capture = Capture() if packets and has_packets() else None
        with stdin_from(stdin_text):
            session.run()
    assert points == list(session.trace.points)
    assert not session.unparsed_lines
    return session.trace


@contextlib.contextmanager
def stdin_from(text: str) -> Iterator[None]:
    """Replace this process's standard input, which a client inherits."""
    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        original = os.dup(0)
        os.dup2(file.fileno(), 0)
        try:
            yield
        finally:
            os.dup2(original, 0)
            os.close(original)


def read_saved(path: Path) -> Trace:
    """Read a saved trace."""
    trace = Trace()
    with open_trace(path) as file:
        file.read(lambda _: None, trace)
    return trace


def page_data(page: str) -> dict[str, Any]:
    """Return the data from which the page of a trace builds its rows."""
    found = re.search(r'id="events">([\w+/=]*)</script>', page)
    assert found is not None
    data: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(found[1])))
    return data


def saved_lines(path: Path) -> list[str]:
    """Return a saved trace as lines of JSON, in the older format."""
    trace, written = read_saved(path), io.StringIO()
    writer = trace_file.TraceFileWriter(written, trace)
    for point in trace.points:
        writer.write(point)
    writer.write_end()
    return written.getvalue().splitlines()


def python_command(source: str) -> list[str]:
    """Return a command that runs Python code."""
    return [*PYTHON, "-c", source]


def findings_by_rule(trace: Trace) -> dict[str, Finding]:
    """Return the findings, by rule."""
    return {finding.rule: finding for finding in run_rules(trace)}


def calls(trace: Trace, role: str, *names: str) -> list[Call]:
    """Return the calls of a lane, in order."""
    return [
        event
        for event in trace.events()
        if isinstance(event, Call)
        and trace.processes[event.process].role == role
        and (not names or event.name in names)
    ]


def packets(trace: Trace) -> list[Packet]:
    """Return the packets, in order."""
    return [event for event in trace.events() if isinstance(event, Packet)]
