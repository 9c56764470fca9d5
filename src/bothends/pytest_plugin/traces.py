"""Traces for a test: of a server and a client in any language. They are kept if the test fails."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from bothends.pytest_plugin.commands import DEFAULT_TIMEOUT, Command, line, run_bothends

DEFAULT_FOLDER: Final = "bothends-traces"
_MAX_NAME: Final = 100  # characters of a test's name in the name of a file


@dataclass(frozen=True)
class TracedRun:
    """A run under `bothends trace`. `status`: the client's. `output`: the drawing, and what was printed."""

    path: Path
    status: int
    output: str

    def ask(self, question: str, *options: str) -> list[dict[str, Any]]:
        """Return the rows of `bothends query`: ask("findings"), ask("calls", "--failed")."""
        arguments = ["query", str(self.path), question, "--json", *options]
        answer = run_bothends(arguments, stdin="", timeout=DEFAULT_TIMEOUT)
        rows: list[dict[str, Any]] = json.loads(answer.stdout)["rows"]
        return rows

    def findings(self) -> list[str]:
        """Return the rules of the mistakes that the trace shows, such as reads-message-in-one-call."""
        return [str(row["rule"]) for row in self.ask("findings")]


class TraceRunner:
    """The fixture `bothends_trace`: each call runs programs under `bothends trace`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)

    def __call__(
        self,
        *,
        server: Command,
        client: Command,
        stdin: str = "",
        timeout: float = DEFAULT_TIMEOUT,
        options: Sequence[str] = (),
    ) -> TracedRun:
        """Run a server and a client until the client exits.

        Skips the test where there is neither strace nor eBPF.

        Args:
            server: the server's command, started first.
            client: the client's command, started once the server listens; {port} is the server's port.
            stdin: the client's standard input.
            timeout: seconds after which the test fails.
            options: more options of `bothends trace`, such as --wire loss=5%.
        """
        path = self._folder / f"run-{next(self._numbers)}.trace"
        __tracebackhide__ = True  # a failure is shown where the test calls this
        programs = ["--server", line(server), "--client", line(client)]
        command = ["trace", "--save", str(path), *programs, *options]
        done = run_bothends(command, stdin=stdin, timeout=timeout)
        return TracedRun(path, done.returncode, done.stdout)


def keep_traces(folder: Path, target: Path, test: str) -> list[Path]:
    """Copy the traces of a failed test into a folder; return the copies."""
    kept = []
    for source in sorted(folder.glob("*.trace")):
        if source.stat().st_size:
            target.mkdir(parents=True, exist_ok=True)
            name = "".join(each if each.isalnum() or each in "-_.[]" else "-" for each in test)
            kept.append(target / f"{name[-_MAX_NAME:]}-{source.name}")
            shutil.copy(source, kept[-1])
    return kept


def attach_traces(report: pytest.TestReport, kept: Sequence[Path]) -> None:
    """Add a section to the report of a failed test that says how to open its traces."""
    commands = "\n".join(f"bothends trace --open {path}" for path in kept)
    report.sections.append(("bothends: traces kept", commands))
