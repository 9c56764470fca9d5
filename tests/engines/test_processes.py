"""`engines/processes.py`: start child processes, notice when they exit, terminate them.

Each test runs a program in its own process, because a test runner has threads and must not fork.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator

import pytest

from bothends.osutil import process_info

# Seconds: on a busy machine starting an interpreter takes several.
TIMEOUT = 40.0

PREAMBLE = """
import os, signal, sys, time
from bothends.engines import processes
from bothends.engines.poll_loop import PollLoop
from bothends.engines.processes import Child, ChildSet, WorkerPool, fork
from bothends.engines.shutdown import ShutdownFlags
from bothends.events import *

def write(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def observe(event):
    if isinstance(event, ChildExited):
        write("exited", event.role, event.status)
    else:
        write(type(event).__name__)

def wait_for_drain(stop):
    loop = PollLoop(stop)
    while loop.draining_since is None:
        loop.run_once(None)

stop = ShutdownFlags()
poll_loop = PollLoop(stop)
children = ChildSet(poll_loop, observe)
"""


class ChildProgram:
    """A Python program in its own process group, whose output is read line by line."""

    def __init__(self, text: str) -> None:
        program = PREAMBLE + textwrap.dedent(text)
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def lines(self, count: int) -> list[str]:
        return [self.line() for _ in range(count)]

    def read_rest(self) -> list[str]:
        out, _ = self.process.communicate(timeout=TIMEOUT)
        return out.decode().splitlines()

    def children(self) -> list[process_info.ProcessInfo]:
        return process_info.process_tree(self.process.pid)[1:]


@contextlib.contextmanager
def running(text: str) -> Iterator[ChildProgram]:
    program = ChildProgram(text)
    try:
        yield program
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.process.pid, signal.SIGKILL)
        program.process.communicate()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def run(text: str) -> list[str]:
    """Return the output of a program, which must exit with status 0."""
    with running(text) as program:
        lines = program.read_rest()
        assert program.process.returncode == 0, lines
        return lines


# One child ------------------------------------------------------------------------------------------


def test_fork_reports_exit_status() -> None:
    lines = run("""
        def fails(): raise ZeroDivisionError
        for main in (lambda: None, lambda: sys.exit(3), lambda: sys.exit("no"), lambda: sys.exit(),
                     lambda: os.kill(os.getpid(), signal.SIGKILL), fails):
            children.add(fork("one", main), lambda child: None)
            children.wait(None)
    """)
    assert [line for line in lines if line.startswith("exited")] == [
        "exited one 0",
        "exited one 3",
        "exited one 1",
        "exited one 0",
        f"exited one {-signal.SIGKILL}",
        "exited one 1",
    ]
    assert any("ZeroDivisionError" in line for line in lines)


def test_fork_prints_bothends_error_without_traceback() -> None:
    lines = run("""
        from bothends.errors import UnknownName
        def fails(): raise UnknownName("service", "ehco", "echo")
        children.add(fork("one", fails), lambda child: None)
        children.wait(None)
    """)
    assert lines == ["bothends: there is no service 'ehco'; did you mean 'echo'?", "exited one 1"]


def test_fork_flushes_stdio_once() -> None:
    lines = run("""
        sys.stdout = open(1, "w", buffering=65536, closefd=False)  # also if PYTHONUNBUFFERED is set
        sys.stdout.write("before\\n")
        children.add(fork("one", lambda: sys.stdout.write("child\\n")), lambda child: None)
        children.wait(None)
        sys.stdout.write("after\\n")
        sys.stdout.flush()
    """)
    assert lines == ["before", "child", "exited one 0", "after"]


def test_fork_child_skips_parent_atexit() -> None:
    lines = run("""
        import atexit
        atexit.register(write, "end")
        children.add(fork("one", lambda: None), lambda child: None)
        children.wait(None)
    """)
    assert lines == ["exited one 0", "end"]


def test_fork_child_ignores_signals_parent_handles() -> None:
    lines = run("""
        signal.signal(signal.SIGTERM, lambda *_: write("received"))
        def main():
            for number in (signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), number)
            write("alive")
            os.kill(os.getpid(), signal.SIGUSR2)
        children.add(fork("one", main), lambda child: None)
        children.wait(None)
        os.kill(os.getpid(), signal.SIGTERM)
        write(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    """)
    assert lines == ["alive", f"exited one {-signal.SIGUSR2}", "received", "set()"]


def test_fork_child_resets_wakeup_fd() -> None:
    lines = run("""
        import socket
        here, there = socket.socketpair()
        for end in (here, there):
            end.setblocking(False)
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.set_wakeup_fd(there.fileno())
        def main():
            signal.signal(signal.SIGUSR1, lambda *_: None)
            os.kill(os.getpid(), signal.SIGUSR1)
        child = fork("one", main)
        children.add(child, lambda child: None)
        children.wait(None)
        try:
            write(here.recv(1))
        except BlockingIOError:
            write("nothing")
    """)
    assert lines == ["exited one 0", "nothing"]


def test_child_set_does_not_reap_foreign_children() -> None:
    lines = run("""
        import subprocess
        other = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # it has exited, and is not reaped
        children.add(fork("one", lambda: os.waitid(os.P_PID, os.getppid(), os.WEXITED) if 0 else None),
                     lambda child: None)
        children.wait(None)
        write(other.wait())
    """)
    assert lines == ["exited one 0", "7"]


def test_child_reaped_elsewhere_counts_as_exited() -> None:
    lines = run("""
        child = fork("one", lambda: None)
        os.waitpid(-1, 0)
        children.add(child, lambda child: None)
        children.wait(None)
    """)
    assert lines == ["exited one 0"]


@pytest.mark.parametrize("kernel", ["with pidfd", "without pidfd"])
def test_child_set_reaps_in_exit_order(kernel: str) -> None:
    with running(f"""
        if {kernel == "without pidfd"}:
            del os.pidfd_open
        go = [os.pipe() for _ in range(3)]
        def main(number):
            os.close(go[number][1])
            os.read(go[number][0], 1)
        for number in range(3):
            children.add(fork(f"child-{{number}}", lambda: main(number)), lambda child: None)
        write("ready", len(children))
        for number in (1, 0, 2):
            sys.stdin.readline()
            os.write(go[number][1], b"x")
            before = len(children)
            while len(children) == before:
                poll_loop.run_once(None)
        write("remaining", len(children), len(os.listdir("/proc/self/fd")) > 0)
    """) as program:
        assert program.line() == "ready 3"
        assert program.process.stdin is not None
        for number, remaining in ((1, 2), (0, 1), (2, 0)):
            program.process.stdin.write(b"\n")
            program.process.stdin.flush()
            assert program.line() == f"exited child-{number} 0"
            assert len(program.children()) == remaining
        assert program.line() == "remaining 0 True"


def test_child_set_leaks_no_descriptor() -> None:
    lines = run("""
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            children.add(fork("one", lambda: children.close_in_child()), lambda child: None)
        children.wait(None)
        write(len(os.listdir("/proc/self/fd")) - before)
    """)
    assert lines[-1] == "0"


# Workers --------------------------------------------------------------------------------------------


def test_worker_pool_restarts_workers_until_drain() -> None:
    with running("""
        def main(stop):
            write("here", os.getpid())
            wait_for_drain(stop)
        signal.signal(signal.SIGTERM, lambda *_: stop.draining.set())
        WorkerPool(3, main, stop, observe, grace=5, on_drain=lambda: write("draining")).run()
        write("over")
    """) as program:
        first = {line.split()[1] for line in program.lines(3)}
        assert len(first) == 3
        os.kill(int(min(first)), signal.SIGKILL)
        assert program.line() == f"exited worker {-signal.SIGKILL}"
        assert program.line().split()[1] not in first
        assert len(program.children()) == 3
        os.kill(program.process.pid, signal.SIGTERM)
        assert sorted(program.read_rest()) == ["draining", *["exited worker 0"] * 3, "over"]
        assert program.process.returncode == 0


def test_worker_pool_backs_off_on_repeated_crash() -> None:
    lines = run("""
        def main(stop):
            os._exit(1)
        times = []
        def record(event):
            times.append(time.monotonic())
            if len(times) == 5:
                stop.draining.set()
        WorkerPool(1, main, stop, record, grace=5).run()
        write(*[round(late - early, 2) for early, late in zip(times, times[1:])])
    """)
    pauses = [float(word) for word in lines[0].split()]
    assert all(minimum <= pause for minimum, pause in zip((0.1, 0.2, 0.4, 0.8), pauses, strict=True))


def test_worker_pool_backoff_is_short_again_after_a_healthy_life() -> None:
    lines = run("""
        processes._STABLE_AFTER = 0.5
        def main(stop):
            if len(times) == 3:  # of the fourth worker
                time.sleep(0.7)
            os._exit(1)
        times = []
        def record(event):
            times.append(time.monotonic())
            if len(times) == 6:
                stop.draining.set()
        WorkerPool(1, main, stop, record, grace=5).run()
        write(*[round(late - early, 2) for early, late in zip(times, times[1:])])
    """)
    pauses = [float(word) for word in lines[0].split()]
    assert sum(pauses[:3]) >= 0.1 + 0.2 + 0.4 + 0.7
    # 0.1 s together, and not 0.4 + 0.8 or more.
    assert sum(pauses[3:]) < 1.2


def test_worker_pool_kills_after_grace() -> None:
    with running("""
        def main(stop):
            write("here")
            time.sleep(1000)
        signal.signal(signal.SIGTERM, lambda *_: stop.draining.set())
        WorkerPool(2, main, stop, observe, grace=0.1).run()
    """) as program:
        assert program.lines(2) == ["here"] * 2
        os.kill(program.process.pid, signal.SIGTERM)
        assert program.read_rest() == [f"exited worker {-signal.SIGKILL}"] * 2


def test_worker_pool_abort_skips_grace() -> None:
    with running("""
        def main(stop):
            write("here")
            time.sleep(1000)
        def abort(*_):
            stop.draining.set()
            stop.aborting.set()
        signal.signal(signal.SIGTERM, abort)
        WorkerPool(2, main, stop, observe, grace=1000).run()
    """) as program:
        assert program.lines(2) == ["here"] * 2
        os.kill(program.process.pid, signal.SIGTERM)
        assert program.read_rest() == [f"exited worker {-signal.SIGKILL}"] * 2


def test_workers_exit_when_parent_is_killed() -> None:
    with running("""
        def main(stop):
            write("here", os.getpid())
            wait_for_drain(stop)
        WorkerPool(3, main, stop, observe, grace=5).run()
    """) as program:
        pids = [int(line.split()[1]) for line in program.lines(3)]
        program.process.kill()
        assert program.read_rest() == []  # EOF: all processes that could write have exited
        wait_until(
            lambda: all((now := process_info.read_process(pid)) is None or now.is_zombie for pid in pids)
        )


def test_worker_pool_fork_failure_retries() -> None:
    lines = run("""
        def main(stop):
            wait_for_drain(stop)
        real, failures = os.fork, [2]
        def no_fork():
            if failures[0]:
                failures[0] -= 1
                raise BlockingIOError(11, "no more processes")
            return real()
        os.fork = no_fork
        def record(event):
            observe(event)
            if isinstance(event, AcceptResumed):
                stop.draining.set()
        WorkerPool(1, main, stop, record, grace=5).run()
    """)
    assert lines == ["AcceptPaused", "AcceptResumed", "exited worker 0"]
