"""Programs run under the tracer, inside the test's own process, so that what was seen can be looked at."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence

import pytest

from bothends.errors import Unavailable
from bothends.trace.capture.packets import Capture
from bothends.trace.findings import Finding, run_rules
from bothends.trace.model import Call, Packet, Point, Trace
from bothends.trace.session import TraceSession

PYTHON = [sys.executable, "-I", "-S"]  # without site-packages: it starts in a third of the time


def has_packets() -> bool:
    """Whether packets can be captured here."""
    try:
        Capture().close()
    except Unavailable:
        return False
    return True


def run_traced(
    *commands: Sequence[str], server: Sequence[str] = (), packets: bool = True, stdin_text: str = ""
) -> Trace:
    """What is seen of these programs. `server` starts first, and `{port}` in the others is its port. `said`
    is the standard input of the first of the others.
    """
    for _ in range(3):
        trace = _run_once(commands, server, packets=packets, stdin_text=stdin_text)
        if not trace.notes:
            return trace
    pytest.skip(f"too much passes by on this machine: {trace.notes}")


def _run_once(
    commands: Sequence[Sequence[str]], server: Sequence[str], *, packets: bool, stdin_text: str
) -> Trace:
    told: list[Point] = []
    session = TraceSession(told.append)
    if server:
        session.add_server("server", server)
    for number, command in enumerate(commands):
        session.add_client(f"client {number + 1}" if number else "client", command, inherit_stdin=not number)
    session.capture = Capture() if packets and has_packets() else None
    with stdin_from(stdin_text):
        session.run()
    assert told == list(session.trace.points)
    assert not session.unparsed_lines
    return session.trace


@contextlib.contextmanager
def stdin_from(text: str) -> Iterator[None]:
    """Something to read on this process's standard input, which a client inherits."""
    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        before = os.dup(0)
        os.dup2(file.fileno(), 0)
        try:
            yield
        finally:
            os.dup2(before, 0)
            os.close(before)


def python_command(source: str) -> list[str]:
    """A command that runs some Python."""
    return [*PYTHON, "-c", source]


def findings_by_rule(trace: Trace) -> dict[str, Finding]:
    """The findings, by the name of their rule."""
    return {finding.rule: finding for finding in run_rules(trace)}


def calls(trace: Trace, role: str, *names: str) -> list[Call]:
    """The calls of a lane, in order."""
    return [
        event
        for event in trace.events()
        if isinstance(event, Call)
        and trace.processes[event.process].role == role
        and (not names or event.name in names)
    ]


def packets(trace: Trace) -> list[Packet]:
    """The packets, in order."""
    return [event for event in trace.events() if isinstance(event, Packet)]
