"""A run of any length: everything is drawn and saved, in memory that doesn't grow with it."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bothends.trace import matching
from bothends.trace import timeline as timeline_module
from bothends.trace.matching import Matcher
from bothends.trace.model import Call, Moment, Packet, Place, Socket, Trace
from bothends.trace.timeline import Timeline
from tests.interop.running import ENVIRONMENT
from tests.tools import needs_tool

CALLS = 100_000
REMEMBERED = 1_000
SOURCE = (
    "import socket\na, b = socket.socketpair()\nfor _ in range({}):\n    a.send(b'x' * 20)\n    b.recv(100)"
)
MEASURED = """
import resource, runpy, sys
sys.argv = ["bothends", *sys.argv[1:]]
try:
    runpy.run_module("bothends", run_name="__main__")
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@needs_tool("strace")
def test_a_hundred_thousand_calls_are_drawn_and_saved(tmp_path: Path) -> None:
    path = tmp_path / "long.trace"
    program = [sys.executable, "-I", "-S", "-c", SOURCE.format(CALLS // 2)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "trace", "--calls-only", "--save", str(path), "--", *program],
        capture_output=True,
        env=ENVIRONMENT,
        check=True,
        timeout=280,
    )
    drawn = done.stdout.decode().splitlines()
    assert sum("sendto(" in line for line in drawn) == CALLS // 2
    assert sum("= 20 " in line for line in drawn) == CALLS // 2
    with path.open(encoding="utf-8") as lines:
        ended = sum("until" in json.loads(line).get("call", ()) for line in lines)
    assert ended >= CALLS
    assert int(done.stderr.split()[-1]) < 500_000  # kilobytes


def test_the_time_line_forgets_what_was_told_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_module, "REMEMBERED", REMEMBERED)
    timeline = Timeline()
    for number in range(1, 3 * REMEMBERED):
        timeline.add(Moment(Call(number, 1, 1, "read", number)))
        assert len(list(timeline.take(number))) == 1
    assert len(timeline._done) <= 2 * REMEMBERED + 1
    timeline.before(2, 2 * 3 * REMEMBERED)  # what was told needn't be waited for
    timeline.add(Moment(Call(3 * REMEMBERED, 1, 2, "read", 1)))
    assert len(list(timeline.take())) == 1


def test_connections_of_long_ago_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "MOST_STREAMS", 40)
    trace, numbers = Trace(), itertools.count(1)
    matcher = Matcher(trace, Timeline())
    server = Place("127.0.0.1", 12000)
    for port in range(40_000, 40_200):
        client = Place("127.0.0.1", port)
        socket = trace.sockets[port] = Socket(port, "inet", "stream", local=server, peer=client)
        call = Call(next(numbers), 1, 1, "recvfrom", port, socket=socket.number, asked=10)
        matcher.add(Moment(call))
        matcher.add(Moment(Packet(next(numbers), port, "tcp", client, server, 1, b"x", ("ACK",))))
        call.until, call.result, call.size = port + 1, 1, 1
        matcher.add(Moment(call, is_end=True))
        assert trace.causes_of(call.number)
    assert len(matcher._streams) <= 40
    assert len(matcher._receiving) <= 40
