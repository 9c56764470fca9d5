"""What is read of threads that are blocked when nothing moves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bothends.trace import session as session_module
from bothends.trace.session import TraceSession

THREADS = [(1, 100, 100), (1, 100, 101)]


def stopped_program() -> Any:
    """Return a program with two threads, none of whose calls are on the timeline."""
    decoder = SimpleNamespace(blocked_calls=lambda: (), running_threads=lambda: THREADS)
    return SimpleNamespace(is_running=True, has_local_pids=True, decoder=decoder)


def test_a_thread_that_is_awake_for_a_moment_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    blocked, asked = object(), list[int]()

    def read(process: int, pid: int, thread: int) -> object | None:
        asked.append(thread)
        return None if thread == 101 and asked.count(101) < 3 else blocked

    monkeypatch.setattr(session_module, "read_thread", read)
    session = TraceSession(lambda _: None)
    session._take_snapshot([stopped_program()])
    assert session._snapshot == {100: blocked, 101: blocked}
    assert asked == [100, 101, 101, 101]


def test_a_thread_that_runs_is_not_in_the_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "read_thread", lambda *_: None)
    session = TraceSession(lambda _: None)
    session._snapshot[101] = object()  # type: ignore[assignment]  # from an earlier one
    session._take_snapshot([stopped_program()])
    assert session._snapshot == {}
