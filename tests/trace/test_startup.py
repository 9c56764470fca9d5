"""How long servers may take to listen: longer on a busy machine, but not if they sleep or compute."""

from __future__ import annotations

import sys
import time

import pytest

from bothends.trace import session as session_module
from bothends.trace.session import TraceSession
from bothends.trace.startup import StartupWait

LIMIT = 2.0  # seconds
LOOKS = 0.05  # seconds between them


def seconds_until_over(share: float, processes: int = 1, events: tuple[float, ...] = ()) -> float:
    """Return when a wait is over for processes that wait for a processor for a share of the time."""
    now = 0.0
    wait = StartupWait(LIMIT, now, lambda _pid: share * now)
    last_event = 0.0
    while not wait.is_over(now):
        now += LOOKS
        last_event = max((each for each in events if each <= now), default=0.0)
        wait.look(now, last_event, range(processes))
    assert wait.delay == pytest.approx(now * min(1.0, share * processes), abs=LOOKS)
    return now


@pytest.mark.parametrize(
    ("share", "processes", "seconds"),
    [
        (0.0, 1, 2),  # it sleeps, or computes on an idle machine
        (0.0, 0, 2),  # its processes are not known
        (0.5, 1, 4),
        (0.25, 2, 4),  # those of two servers, or of a server and strace, add up,
        (0.75, 2, 12),  # but not to more than the time that has passed
        (1.0, 1, 12),  # six times the limit at most
    ],
)
def test_wait_for_a_processor_does_not_count(share: float, processes: int, seconds: float) -> None:
    assert seconds_until_over(share, processes) == pytest.approx(seconds, abs=2 * LOOKS)


def test_wait_begins_again_with_each_event() -> None:
    assert seconds_until_over(0.5, events=(1.0, 3.0)) == pytest.approx(3 + 4, abs=2 * LOOKS)


def test_process_that_is_gone_takes_nothing_away() -> None:
    waited = {1: 5.0, 2: 1.0}
    wait = StartupWait(LIMIT, 0.0, lambda pid: waited[pid])
    wait.look(1.0, 0.0, (1, 2))
    wait.look(1.5, 0.0, (2,))
    assert wait.delay == 1.0
    waited[2] = 1.25
    wait.look(2.0, 0.0, (2,))
    assert wait.delay == 1.25


def test_clients_start_although_a_server_computes_and_never_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "SERVER_TIMEOUT", 0.5)
    session = TraceSession(lambda _point: None)
    session.add_server("server", [sys.executable, "-c", "while True: pass"])
    session.add_client("client", [sys.executable, "-c", "pass"], inherit_stdin=False)
    started_at = time.monotonic()
    session.run()
    assert time.monotonic() - started_at < 60
    assert any("server called neither listen() nor bind() for" in note for note in session.trace.notes)
