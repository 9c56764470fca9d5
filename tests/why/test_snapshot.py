"""Read threads and processes: names, idle times, and what happens where the kernel shows less."""

from __future__ import annotations

import os
import time

import pytest

from bothends.osutil.process_memory import read_memory
from bothends.why import make_report, snapshot, take_snapshot
from bothends.why.snapshot import name_from_command, scheduler_clocks
from tests.why.programs import Programs, find, until

DEADLOCK = ("connection, _ = listener.accept()\nconnection.recv(1)\n", "connection.recv(1)\n")


@pytest.mark.parametrize(
    ("words", "comm", "name"),
    [
        (["/usr/bin/python3", "-u", "/srv/server.py", "80"], "python3", "server.py"),
        (["python3.11", "-X", "dev", "server.py"], "python3.11", "server.py"),
        (["python3", "-m", "http.server"], "python3", "http.server"),
        (["python3", "-c", "print(1)"], "python3", "python3"),
        (["node", "/srv/app.js"], "node", "app.js"),
        (["java", "-cp", "classes", "org.example.Server", "80"], "java", "Server"),
        (["java", "-jar", "/srv/server.jar"], "java", "server.jar"),
        (["nginx: worker process"], "nginx", "nginx"),
        (["bash"], "bash", "bash"),
        ([], "kworker", "kworker"),
    ],
)
def test_name_from_command(words: list[str], comm: str, name: str) -> None:
    assert name_from_command(words, comm) == name


def test_scheduler_clocks_leave_the_affinity_alone() -> None:
    before = os.sched_getaffinity(0)
    clocks = scheduler_clocks()
    assert os.sched_getaffinity(0) == before
    assert not clocks or set(clocks) == before


def test_idle_time_does_not_depend_on_the_processor(programs: Programs) -> None:
    """A thread's idle time grows as the wall clock does, on every processor."""
    clocks = scheduler_clocks()
    if not clocks:
        pytest.skip("this kernel has no /proc/PID/sched")
    pids = []
    started = time.monotonic()
    for processor in clocks:
        code = (
            f"import os, socket\nos.sched_setaffinity(0, {{{processor}}})\none, two = socket.socketpair()\n"
        )
        pids.append(programs.start("wait.py", code + "print('ready', flush=True)\none.recv(1)\n")[0])
    found = until(
        lambda snapshot: all((snapshot.processes[pid].threads[0].idle or 0.0) > 0.7 for pid in pids), *pids
    )
    elapsed = time.monotonic() - started
    for pid in pids:
        assert (found.processes[pid].threads[0].idle or 0.0) < elapsed


def test_without_scheduler_clock_switches_are_compared(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "scheduler_clocks", dict)
    server, _, _ = programs.pair(*DEADLOCK)
    problem = find("deadlock", server)
    assert problem.seconds is not None
    assert problem.seconds >= 0.5


def test_unreadable_calls_are_noted_and_count_as_able_to_act(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client, _ = programs.pair(*DEADLOCK)
    find("deadlock", server)
    read = snapshot._read

    def refuse(path: str) -> bytes:
        if path.endswith("/syscall") and f"/{client}/" in path:
            raise PermissionError(13, path)
        return read(path)

    monkeypatch.setattr(snapshot, "_read", refuse)
    found = take_snapshot()
    assert any("run as root" in note for note in found.notes)
    assert not found.processes[client].is_readable

    assert not any(server in problem.pids for problem in make_report(found).problems if problem.is_wrong)


def test_memory_of_this_process_and_of_none() -> None:
    import ctypes

    buffer = ctypes.create_string_buffer(b"hello")
    assert read_memory(os.getpid(), ctypes.addressof(buffer), 5) == b"hello"
    assert read_memory(os.getpid(), 0, 5) == b""
    assert read_memory(2**22 + 1, ctypes.addressof(buffer), 5) == b""
