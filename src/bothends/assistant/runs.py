"""Runs of an assistant's programs: each in a process of the lab, in the sandbox, bounded in time and size."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from bothends.errors import UsageError
from bothends.lab.messages import (
    Built,
    Ended,
    Exited,
    Failed,
    Output,
    Program,
    Reply,
    Rows,
    Start,
    Started,
    Stop,
    Waits,
)
from bothends.lab.messages import Path as NetworkPath
from bothends.lab.runs import RunForks, RunProcess, saved_trace
from bothends.trace.model import Trace
from bothends.trace.opening import open_trace
from bothends.trace.query import QUESTIONS, Selection, ask
from bothends.trace.rendering.layout import Filter, rows_of
from bothends.trace.rendering.terminal import Painter
from bothends.trace.trace_file import Period

MAX_RUNS: Final = 8  # that are kept; the oldest is ended and forgotten
MAX_RUNNING: Final = 2  # at once
MAX_SECONDS: Final = 60.0  # of a run
MAX_LINES: Final = 200  # of a timeline
MAX_ROWS: Final = 200  # of an answer
MAX_OUTPUT: Final = 8_000  # characters of what one program printed
_WIDTH: Final = 110  # columns of a timeline

_reply_decoder: Final = msgspec.json.Decoder(Reply)


@dataclass(slots=True)
class AssistantRun:
    """One run: its process, and what it has reported so far."""

    number: int
    process: RunProcess
    file: Path
    state: str = "starting"  # then "running", "hangs", and "ended" or "failed"
    roles: list[str] = field(default_factory=list)
    output: dict[int, str] = field(default_factory=dict)
    exits: dict[int, str] = field(default_factory=dict)
    built: dict[int, Built] = field(default_factory=dict)
    waits: list[str] = field(default_factory=list)
    ended: Ended | None = None
    failure: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    reader: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether no program of it runs."""
        return self.state in ("ended", "failed")

    def take(self, reply: Reply) -> None:
        """Note a reply of the process."""
        match reply:
            case Started(roles):
                self.roles, self.state = roles, "running"
            case Output(program, text):
                self.output[program] = (self.output.get(program, "") + text)[: MAX_OUTPUT + 1]
            case Built(program):
                self.built[program] = reply
            case Exited(program, how):
                self.exits[program] = how
            case Waits(sentences):
                self.waits, self.state = sentences, "hangs" if sentences else "running"
            case Failed(text):
                self.failure, self.state = text, "failed"
            case Ended():
                self.ended, self.state = reply, "ended"
                self.waits = reply.waits
            case Rows() | _:
                return
        self.changed.set()

    def summary(self) -> dict[str, Any]:
        """Return what is known about the run, without its timeline."""
        programs = [
            {
                "role": self.roles[number] if number < len(self.roles) else f"program {number}",
                "output": shortened(self.output.get(number, ""), MAX_OUTPUT),
                "exit": self.exits.get(number, ""),
            }
            | ({"compiler": self.built[number].output} if number in self.built else {})
            for number in range(max(len(self.roles), len(self.built)))
        ]
        found: dict[str, Any] = {"run": self.number, "state": self.state, "programs": programs}
        found["waits"] = self.waits
        if self.failure:
            found["failure"] = self.failure
        if self.ended is not None:
            found |= {
                "ended_by": self.ended.reason or "the programs",
                "seconds": self.ended.seconds,
                "findings": self.ended.findings,
                "notes": self.ended.notes,
            }
        return found


def shortened(text: str, limit: int) -> str:
    """Return a text with at most `limit` characters, and a mark where it is cut."""
    return text if len(text) <= limit else f"{text[:limit]}\n[cut after {limit:,} characters]"


class Runs:
    """The runs of one assistant. Use it as an asynchronous context manager, which ends them."""

    def __init__(self) -> None:
        self._runs: dict[int, AssistantRun] = {}
        self._count = 0
        self._folder = tempfile.TemporaryDirectory(prefix="bothends-assistant-")
        self._forks = RunForks(save_in=Path(self._folder.name))

    async def __aenter__(self) -> Runs:
        return self

    async def __aexit__(self, *_: object) -> None:
        for run in list(self._runs.values()):
            await self._forget(run)
        await self._forks.close()
        self._folder.cleanup()

    def get(self, number: int) -> AssistantRun:
        """Return a run. Raises UsageError."""
        if number not in self._runs:
            kept = ", ".join(map(str, self._runs)) or "none"
            raise UsageError(f"there is no run {number}; kept: {kept}")
        return self._runs[number]

    async def start(
        self, programs: Sequence[Mapping[str, str]], seconds: float, path: Mapping[str, float] | None
    ) -> AssistantRun:
        """Start programs. Raises UsageError for invalid ones, Unavailable without a sandbox."""
        if sum(not each.is_over for each in self._runs.values()) >= MAX_RUNNING:
            raise UsageError(f"{MAX_RUNNING} runs are not over; stop one, or wait for its end")
        if not 0 < seconds <= MAX_SECONDS:
            raise UsageError(f"seconds must be more than 0 and at most {MAX_SECONDS:g}")
        try:
            start = msgspec.convert(
                {"type": "start", "programs": [*programs], "time_limit": seconds}, type=Start
            )
            start.path = msgspec.convert(path, type=NetworkPath) if path else None
        except msgspec.ValidationError as error:
            raise UsageError(f"invalid programs: {error}") from error
        _check_kinds(start.programs)
        while len(self._runs) >= MAX_RUNS:
            await self._forget(next(iter(self._runs.values())))
        self._count += 1
        process = await RunProcess.start(self._forks)
        run = AssistantRun(self._count, process, saved_trace(Path(self._folder.name), process.pid))
        self._runs[run.number] = run
        run.process.send(start)
        run.reader = asyncio.create_task(self._read(run))
        return run

    async def _read(self, run: AssistantRun) -> None:
        """Note the replies of a run until it is over, then end its process."""
        try:
            async with asyncio.timeout(run.process.max_seconds):
                while not run.is_over and (line := await run.process.read()):
                    run.take(_reply_decoder.decode(line))
        except (TimeoutError, msgspec.DecodeError) as error:
            run.failure = f"the run was broken off: {str(error) or 'it took too long'}"
        finally:
            if not run.is_over:
                run.failure = run.failure or "the process of the run has ended"
                run.state = "failed"
            run.changed.set()
            await run.process.close()

    async def wait(self, run: AssistantRun, states: Sequence[str], seconds: float) -> None:
        """Wait until a run is in one of the states, for at most `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while run.state not in states:
                    run.changed.clear()
                    await run.changed.wait()

    async def stop(self, run: AssistantRun, seconds: float = 15.0) -> None:
        """End a run, and wait for its findings."""
        if not run.is_over:
            run.process.send(Stop())
            await self.wait(run, ("ended", "failed"), seconds)

    async def _forget(self, run: AssistantRun) -> None:
        del self._runs[run.number]
        if run.reader is not None and not run.reader.done():
            run.reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await run.reader
        run.file.unlink(missing_ok=True)


def _check_kinds(programs: Sequence[Program]) -> None:
    if not any(each.kind == "server" for each in programs) or not any(
        each.kind == "client" for each in programs
    ):
        raise UsageError("give at least one server and one client: the run ends with the last client")


# What a saved timeline says -------------------------------------------------------------------------


def timeline(run: AssistantRun, begin: float | None = None, end: float | None = None) -> str:
    """Return the timeline of a run, or a part of it in seconds, as lines of text."""
    lines: list[str] = []
    painter = Painter(_WIDTH, colour=False)
    for row in rows_of(_open(run, begin, end), Filter(hide_quiet_calls=True), fold=True):
        lines += painter.lines(row)
    if len(lines) > MAX_LINES:
        half = MAX_LINES // 2
        left_out = f"[{len(lines) - MAX_LINES} lines are left out; ask for a part with begin and end]"
        lines = [*lines[:half], left_out, *lines[-half:]]
    return "\n".join(lines)


def query(
    run: AssistantRun, question: str, chosen: Selection, begin: float | None, end: float | None, limit: int
) -> list[dict[str, Any]]:
    """Return the rows that answer a question about a run's timeline. Raises UsageError."""
    if question not in QUESTIONS:
        raise UsageError(f"there is no question {question!r}; ask for {', '.join(QUESTIONS)}")
    if question == "findings" and (begin is not None or end is not None):
        raise UsageError("findings need the whole timeline: without begin and end")
    rows: list[dict[str, Any]] = []
    for row in ask(_open(run, begin, end), question, chosen):
        if len(rows) >= min(max(limit, 1), MAX_ROWS):
            break
        rows.append(dict(row))
    return rows


def _open(run: AssistantRun, begin: float | None, end: float | None) -> Trace:
    if not run.file.exists():
        raise UsageError(f"run {run.number} has no timeline yet: it is {run.state}")
    trace = Trace()
    with open_trace(run.file) as file:
        file.read(lambda _: None, trace, Period.from_seconds(begin, end))
    return trace
