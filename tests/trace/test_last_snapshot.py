"""What the servers were blocked in when ^C came, although the clients' ends have moved them since."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Final

import pytest

from bothends.trace.model import Call, Point, Trace
from bothends.trace.session import TraceSession
from tests.trace.running import python_command
from tests.trace.sources import open_call_source

TIMEOUT: Final = 20.0  # seconds
SETTLED: Final = 4  # reports one after another with the same picture
# One thread reads with the lock held, and the main thread waits for it until the client has gone.
SERVER: Final = """
import pathlib, socket, threading, time
lock = threading.Lock()
with socket.create_server(("127.0.0.1", 0)) as listener:
    listener.getsockname()
    connection, _ = listener.accept()
def read():
    with lock:
        connection.recv(100)
threading.Thread(target=read).start()
while not lock.locked():
    time.sleep(0.001)
with lock:
    pathlib.Path("moved").touch()
time.sleep(60)
"""
CLIENT: Final = """
import socket, sys
socket.create_connection(("127.0.0.1", int(sys.argv[1]))).recv(100)
"""


def reads_and_waits(trace: Trace) -> bool:
    """Return whether one thread of the server is blocked in recv(), and one in futex()."""
    reads = any(
        isinstance(event, Call) and (event.process, event.name, event.until) == (1, "recvfrom", None)
        for event in trace.events()
    )
    return reads and any(call.name == "futex" for call in trace.blocked)


@pytest.mark.usefixtures("call_source")
def test_servers_are_shown_as_they_were_before_the_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    reports = 0

    def on_stall(_requested: bool) -> None:
        nonlocal reports
        if not reads_and_waits(session.trace) or (reports := reports + 1) < SETTLED:
            signal.raise_signal(signal.SIGQUIT)  # asks again
            return
        session.stop(signal.SIGINT)
        client.signal(signal.SIGINT)
        deadline = time.monotonic() + TIMEOUT
        while not Path("moved").exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    def on_point(point: Point) -> None:
        if point.event.number == 1:
            signal.raise_signal(signal.SIGQUIT)

    with open_call_source() as source:
        session = TraceSession(on_point, bpf=source, on_stall=on_stall, time_limit=TIMEOUT)
        session.add_server("server", python_command(SERVER))
        client = session.add_client("client", [*python_command(CLIENT), "{port}"], inherit_stdin=False)
        session.run()
    assert Path("moved").exists()
    assert session.trace.ended_by == "SIGINT"
    assert [call.name for call in session.trace.blocked if call.process == 1] == ["futex"]
