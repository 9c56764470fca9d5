"""What is read of threads that are blocked when nothing moves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bothends.trace import session as session_module
from bothends.trace.analysis import TraceAnalysis
from bothends.trace.model import Call, Trace, TracedProcess
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


def test_a_call_that_has_ended_since_the_last_snapshot_is_forgotten() -> None:
    blocked = [Call(7, 1, 100, "rt_sigaction", 1)]
    program = stopped_program()
    program.has_local_pids = False
    program.decoder.blocked_calls = lambda: iter(blocked)
    session = TraceSession(lambda _: None)
    session._take_snapshot([program])
    assert session._undrawn == {100: blocked[0]}
    blocked.clear()
    session._take_snapshot([program])
    assert session._undrawn == {}


@pytest.mark.parametrize(("exited_at", "is_blocked"), [(None, True), (300, True), (100, False)])
def test_a_thread_that_exited_before_the_last_snapshot_is_not_blocked(
    exited_at: int | None, is_blocked: bool
) -> None:
    trace = Trace()
    trace.processes[1] = TracedProcess(1, 100, "server", "./server")
    if exited_at is not None:
        trace.thread_exits[101] = exited_at
    analysis = TraceAnalysis(trace, lambda _: None)
    analysis.record_blocked_calls({}, {101: Call(7, 1, 101, "futex", 50)}, 200)
    assert bool(trace.blocked) == is_blocked
