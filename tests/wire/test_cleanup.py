"""A wire leaves no process behind, however it ends, and so no namespace, device or descriptor."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bothends.osutil import process_info
from tests.cli.terminals import terminal
from tests.interop.running import Running
from tests.wire.hosts import needs_hosts

pytestmark = needs_hosts

TIMEOUT = 20.0


def marked_processes(mark: str) -> list[int]:
    """Return the processes whose command line contains a mark."""
    found = []
    for each in process_info.all_processes():
        try:
            line = Path(f"/proc/{each.pid}/cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in line:
            found.append(each.pid)
    return found


def wait_until_gone(mark: str) -> bool:
    """Return whether all processes with the mark exit within TIMEOUT."""
    deadline = time.monotonic() + TIMEOUT
    while marked_processes(mark):
        if time.monotonic() > deadline:
            return False
    return True


# The last command daemonizes: its own session, no waiting parent, and ignored signals.
DETACHED_COMMAND = (
    "trap '' TERM INT HUP; setsid sh -c 'sleep 4711 & echo hidden; wait' & sleep 4712 & echo ready; wait"
)


def command(mark: str) -> list[str]:
    run = [sys.executable, "-m", "bothends", "wire", "-q", "--delay", "5ms"]
    return [*run, "--host", f"server=: {mark}", "--host", f"client=: {mark}; {DETACHED_COMMAND}"]


def holder_and_supervisor(bothends: int) -> tuple[int, int]:
    """Return the process ids of the holder and the supervisor of a running wire."""
    (holder,) = (each.pid for each in process_info.all_processes() if each.parent == bothends)
    (supervisor,) = (each.pid for each in process_info.all_processes() if each.parent == holder)
    return holder, supervisor


TERMINATIONS: dict[str, Callable[[int], object]] = {
    "SIGTERM": lambda pid: os.kill(pid, signal.SIGTERM),
    "SIGINT": lambda pid: os.kill(pid, signal.SIGINT),
    "SIGHUP": lambda pid: os.kill(pid, signal.SIGHUP),
    "SIGKILL": lambda pid: os.kill(pid, signal.SIGKILL),
    "holder-killed": lambda pid: os.kill(holder_and_supervisor(pid)[0], signal.SIGKILL),
    "supervisor-killed": lambda pid: os.kill(holder_and_supervisor(pid)[1], signal.SIGKILL),
}
STATUS = {
    "SIGTERM": 143,
    "SIGINT": 130,
    "SIGHUP": 129,
    "SIGKILL": -9,
    "holder-killed": 1,
    "supervisor-killed": 1,
}


@pytest.mark.spread("termination", one_in=3)
@pytest.mark.parametrize("termination", TERMINATIONS)
def test_wire_terminated_leaves_no_process(termination: str) -> None:
    mark = f"mark-{os.getpid()}-{termination}"
    with Running(command(mark)) as running:
        running.text(rb"hidden")
        running.text(rb"ready")
        assert len(marked_processes(mark)) >= 4  # bothends, holder, supervisor, the shell
        TERMINATIONS[termination](running.process.pid)
        assert running.wait() == STATUS[termination]
        assert wait_until_gone(mark)
    assert not str(running.stderr).count("Traceback")


def test_wire_terminal_hangup_leaves_no_process(tmp_path: Path) -> None:
    mark = f"mark-{os.getpid()}-terminal"
    with terminal(*command(mark)[3:], state=tmp_path) as screen:
        screen.expect("ready")
        assert marked_processes(mark)
    # The terminal is closed, and its process has been killed.
    assert wait_until_gone(mark)


@pytest.mark.slow
def test_wire_repeated_kill_leaves_no_process() -> None:
    mark = f"mark-{os.getpid()}-often"
    before = process_info.descriptors()
    for number in range(200):
        with Running(command(mark)) as running:
            if number % 2:
                running.text(rb"ready")
            running.process.send_signal(signal.SIGKILL if number % 4 else signal.SIGTERM)
            running.wait()
    assert wait_until_gone(mark)
    assert set(process_info.descriptors()) <= set(before)
