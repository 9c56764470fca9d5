"""Run small programs, and look at them until a condition holds: no sleeps, no fixed ports."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bothends.why import Problem, Report, Snapshot, make_report, take_snapshot
from bothends.why.explain import Subject

TIMEOUT = 20.0
# Programs get the port of the server as their first argument, and print a line when they are ready.
SERVER = "import socket, sys\nlistener = socket.create_server(('127.0.0.1', 0))\n"
SERVER += "print(listener.getsockname()[1], flush=True)\n"
CLIENT = "import socket, sys\nconnection = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
CLIENT += "print('connected', flush=True)\n"


class Programs:
    """Start Python programs, and end them together."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._terminals: list[int] = []
        self.running: list[subprocess.Popen[str]] = []

    def start(self, name: str, code: str, *arguments: str, terminal: bool = False) -> tuple[int, str]:
        """Run code as a script of this name. Returns its PID and the first line that it prints.

        `terminal`: standard input is a terminal, not a pipe.
        """
        script = self._folder / name
        script.write_text(code, encoding="utf-8")
        stdin = subprocess.PIPE
        if terminal:
            master, stdin = os.openpty()
            self._terminals += [master, stdin]
        process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.running.append(process)
        assert process.stdout is not None
        return process.pid, process.stdout.readline().strip()

    def pair(self, server: str, client: str) -> tuple[int, int, int]:
        """Run a server and a client, each after its opening lines. Returns both PIDs and the port."""
        server_pid, port = self.start("server.py", SERVER + server)
        client_pid, _ = self.start("client.py", CLIENT + client, port)
        return server_pid, client_pid, int(port)

    def stop(self) -> None:
        """Kill all programs, and what they have started."""
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        for descriptor in self._terminals:
            os.close(descriptor)


def look(*pids: int) -> tuple[Snapshot, Report]:
    """Return a snapshot, and the report on some processes."""
    snapshot = take_snapshot(also=pids)
    return snapshot, make_report(snapshot, Subject("test", pids=pids))


def until(condition: Callable[[Snapshot], bool], *pids: int) -> Snapshot:
    """Look until a condition holds. Fails after `TIMEOUT` seconds."""
    deadline = time.monotonic() + TIMEOUT
    while not condition(snapshot := take_snapshot(also=pids)):
        assert time.monotonic() < deadline, [
            str(thread) for thread in snapshot.threads() if thread.pid in pids
        ]
    return snapshot


def find(kind: str, *pids: int, condition: Callable[[Problem], bool] = lambda problem: True) -> Problem:
    """Look until a problem of this kind is reported for some processes."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        _, report = look(*pids)
        for problem in report.problems:
            if problem.kind == kind and condition(problem):
                return problem
        assert time.monotonic() < deadline, (kind, report)


def settle(seconds: float, *pids: int) -> Report:
    """Look until every thread of some processes has been blocked for a while. Returns the report on them."""

    def is_quiet(snapshot: Snapshot) -> bool:
        threads = [thread for thread in snapshot.threads() if thread.pid in pids]
        return len(threads) >= len(pids) and all((thread.idle or 0.0) >= seconds for thread in threads)

    return make_report(until(is_quiet, *pids), Subject("test", pids=pids))


def problems_while(process_is_busy: Callable[[], bool], *pids: int) -> Iterator[Problem]:
    """Yield every problem that is reported for some processes while a condition holds."""
    while process_is_busy():
        yield from (problem for problem in look(*pids)[1].problems if problem.is_wrong)
