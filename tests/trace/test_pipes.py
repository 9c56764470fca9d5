"""Pipes and socketpairs between the processes of a program."""

from __future__ import annotations

from typing import Final

import pytest

from bothends.trace.model import Call, Trace
from bothends.trace.rendering.layout import rows_of
from bothends.trace.summary import TraceSummary
from tests.trace.running import findings_by_rule, python_command, run_traced

pytestmark = pytest.mark.spread("call_source", one_in=2)

FORKED: Final = """
import os, socket
ours, theirs = socket.socketpair()
read_end, write_end = os.pipe()
back_read, back_write = os.pipe()
if os.fork() == 0:
    ours.close()
    os.close(write_end)
    theirs.sendall(theirs.recv(100).upper())
    os.write(back_write, os.read(read_end, 100)[::-1])
    os._exit(0)
theirs.close()
os.close(read_end)
os.close(back_write)
ours.sendall(b"through a socketpair")
ours.recv(100)
os.write(write_end, b"through a pipe")
os.read(back_read, 100)
os.read(back_read, 100)
os.wait()
"""
FILTER: Final = """
import socket, subprocess
with socket.socketpair()[0]:
    subprocess.run(["tr", "a-z", "A-Z"], input=b"to a filter", capture_output=True)
"""
OWN_PIPE: Final = """
import os, socket
with socket.socketpair()[0]:
    read_end, write_end = os.pipe()
    os.write(write_end, b"wake up")
    os.read(read_end, 100)
"""
ASKS_FOR_A_NAME: Final = """
import os, pwd
pwd.getpwuid(os.getuid())  # the C library connects to the name service cache
read_end, write_end = os.pipe()
if os.fork() == 0:
    os.write(write_end, b"from the child")
    os._exit(0)
os.read(read_end, 100)
os.wait()
"""
SHELL: Final = "echo from a shell | cat | cat > /dev/null"


def transfers(trace: Trace) -> list[tuple[str, str, bytes]]:
    """Return the calls on pipes, a write at its start and a read at its end: role, call, data."""
    return [
        (trace.processes[call.process].role, call.name, call.data)
        for point in trace.points
        if isinstance(call := point.event, Call)
        and is_pipe(trace, call)
        and point.is_end == (call.name == "read")
    ]


def is_pipe(trace: Trace, call: Call) -> bool:
    return call.socket is not None and trace.sockets[call.socket].family == "pipe"


def arrows(trace: Trace) -> list[str]:
    """Return what is drawn as arrows, with their lanes."""
    return [
        f"{row.arrow.from_lane} {row.arrow.to_lane} {row.arrow.text}"
        for row in rows_of(trace)
        if row.arrow is not None
    ]


def test_parent_and_child_talk_through_a_socketpair_and_pipes(call_source: str) -> None:
    trace = run_traced(python_command(FORKED))
    assert transfers(trace) == [
        ("client", "write", b"through a pipe"),
        ("client/2", "read", b"through a pipe"),
        ("client/2", "write", b"epip a hguorht"),
        ("client", "read", b"epip a hguorht"),
    ]
    assert arrows(trace) == [
        '0 1 "through a socketpair"',
        '1 0 "THROUGH A SOCKETPAIR"',
        '0 1 "through a pipe"',
        '1 0 "epip a hguorht"',
    ]
    for call in (event for event in trace.events() if isinstance(event, Call) and event.name == "read"):
        if is_pipe(trace, call):
            (link,) = trace.causes_of(call.number)
            cause = trace.event(link.cause)
            assert link.kind == "reaches"
            assert isinstance(cause, Call)
            assert (cause.name, cause.data) == ("write", call.data)
    summary = TraceSummary(trace)
    assert not [each.name for each in summary.connections if "pipe" in each.name]
    assert sum(each.sent for each in summary.processes) == 2 * len("through a socketpair")  # sockets only
    assert findings_by_rule(trace) == {}


def test_child_that_runs_a_command_reads_and_writes_pipes_in_its_own_lane(call_source: str) -> None:
    trace = run_traced(python_command(FILTER))
    assert [each for each in transfers(trace) if each[2]] == [
        ("client", "write", b"to a filter"),
        ("client/2", "read", b"to a filter"),
        ("client/2", "write", b"TO A FILTER"),
        ("client", "read", b"TO A FILTER"),
    ]


@pytest.mark.parametrize(
    "command",
    [python_command(OWN_PIPE), ["sh", "-c", SHELL], python_command(ASKS_FOR_A_NAME)],
    ids=["own", "shell", "asks-for-a-name"],
)
def test_pipe_of_one_process_and_pipes_without_sockets_are_not_drawn(
    command: list[str], call_source: str
) -> None:
    assert transfers(run_traced(command)) == []
