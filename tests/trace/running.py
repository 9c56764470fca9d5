"""Programs run under the tracer, inside the test's own process, so that what was seen can be looked at."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bothends.errors import Unavailable
from bothends.trace.findings import Finding, find
from bothends.trace.model import Call, Moment, Packet, Trace
from bothends.trace.packets import Capture
from bothends.trace.session import Session

PYTHON = [sys.executable, "-I", "-S"]  # without site-packages: it starts in a third of the time


def has_packets() -> bool:
    """Whether packets can be captured here."""
    try:
        Capture().close()
    except Unavailable:
        return False
    return True


def traced(*commands: Sequence[str], server: Sequence[str] = (), packets: bool = True) -> Trace:
    """What is seen of these programs. `server` starts first; `{port}` in the others is its port."""
    told: list[Moment] = []
    session = Session(told.append)
    if server:
        session.server("server", server)
    for number, command in enumerate(commands):
        session.client("client" if not number else f"client {number + 1}", command, keyboard=False)
    session.capture = Capture() if packets and has_packets() else None
    session.run()
    assert told == list(session.trace.moments)
    assert not session.odd_lines
    return session.trace


def python(source: str) -> list[str]:
    """A command that runs some Python."""
    return [*PYTHON, "-c", source]


def found(trace: Trace) -> dict[str, Finding]:
    """The findings, by the name of their rule."""
    return {finding.rule: finding for finding in find(trace)}


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
