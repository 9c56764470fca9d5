"""However it ends, no process is left, and so no namespace, device or descriptor."""

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

PATIENCE = 20.0


def ours(mark: str) -> list[int]:
    """The processes whose command line has a mark."""
    found = []
    for each in process_info.everyone():
        try:
            line = Path(f"/proc/{each.pid}/cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in line:
            found.append(each.pid)
    return found


def gone(mark: str) -> bool:
    """Whether within our patience no process has the mark any more."""
    deadline = time.monotonic() + PATIENCE
    while ours(mark):
        if time.monotonic() > deadline:
            return False
    return True


# The last command hides: its own session, no parent that waits, and deaf to what asks it to end.
HIDDEN = "trap '' TERM INT HUP; setsid sh -c 'sleep 4711 & echo hidden; wait' & sleep 4712 & echo ready; wait"


def command(mark: str) -> list[str]:
    run = [sys.executable, "-m", "bothends", "wire", "-q", "--delay", "5ms"]
    return [*run, "--host", f"server=: {mark}", "--host", f"client=: {mark}; {HIDDEN}"]


def parts(bothends: int) -> tuple[int, int]:
    """The keeper and the supervisor of a running wire."""
    (keeper,) = (each.pid for each in process_info.everyone() if each.parent == bothends)
    (supervisor,) = (each.pid for each in process_info.everyone() if each.parent == keeper)
    return keeper, supervisor


ENDS: dict[str, Callable[[int], object]] = {
    "SIGTERM": lambda pid: os.kill(pid, signal.SIGTERM),
    "SIGINT": lambda pid: os.kill(pid, signal.SIGINT),
    "SIGHUP": lambda pid: os.kill(pid, signal.SIGHUP),
    "SIGKILL": lambda pid: os.kill(pid, signal.SIGKILL),
    "keeper-killed": lambda pid: os.kill(parts(pid)[0], signal.SIGKILL),
    "supervisor-killed": lambda pid: os.kill(parts(pid)[1], signal.SIGKILL),
}
STATUS = {
    "SIGTERM": 143,
    "SIGINT": 130,
    "SIGHUP": 129,
    "SIGKILL": -9,
    "keeper-killed": 1,
    "supervisor-killed": 1,
}


@pytest.mark.parametrize("how", ENDS)
def test_nothing_is_left(how: str) -> None:
    mark = f"mark-{os.getpid()}-{how}"
    with Running(command(mark)) as running:
        running.text(rb"hidden")
        running.text(rb"ready")
        assert len(ours(mark)) >= 4  # bothends, keeper, supervisor, the shell
        ENDS[how](running.process.pid)
        assert running.end() == STATUS[how]
        assert gone(mark)
    assert not str(running.complained).count("Traceback")


def test_a_terminal_that_goes_away(tmp_path: Path) -> None:
    mark = f"mark-{os.getpid()}-terminal"
    with terminal(*command(mark)[3:], state=tmp_path) as screen:
        screen.expect("ready")
        assert ours(mark)
    # The terminal is closed, and the process that was at it has been killed.
    assert gone(mark)


@pytest.mark.slow
def test_two_hundred_times() -> None:
    mark = f"mark-{os.getpid()}-often"
    before = process_info.descriptors()
    for number in range(200):
        with Running(command(mark)) as running:
            if number % 2:
                running.text(rb"ready")
            running.process.send_signal(signal.SIGKILL if number % 4 else signal.SIGTERM)
            running.end()
    assert gone(mark)
    assert set(process_info.descriptors()) <= set(before)
