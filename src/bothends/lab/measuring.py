"""Measure servers of the page and engines under one load, with the functions of `bothends bench`.

1. In each round every target is started, measured and ended, in a random order, so that a slow minute affects
   all alike (`bench/campaign.py`).
2. Servers of the page run in the sandbox. Engines are part of bothends, and run in the network of the run.
3. The server runs on the first CPU and the generator on the last. What limited a measurement is sent with it.
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bothends.bench.engine_targets import engine_target
from bothends.bench.generators.base import Progress, RunPlan
from bothends.bench.generators.dialer import detect_rule
from bothends.bench.load import measure, select_generator
from bothends.bench.results import Round
from bothends.bench.schedule import Schedule
from bothends.bench.targets import (
    RunningTarget,
    choose_cpus,
    kill_targets_on_exit,
    pinned_to_cpu,
    raise_fd_limit,
    run_target,
)
from bothends.bench.workload import numbered
from bothends.check.sandbox.launcher import Sandbox
from bothends.check.subjects.listening import listeners
from bothends.engines import registry
from bothends.errors import BothendsError, UnknownName, UsageError
from bothends.escaping import escape_controls
from bothends.lab.attendant import Attendant
from bothends.lab.messages import LoadSample, Measure, Measured, MeasuredAll, MeasuredLoad, Measuring
from bothends.lab.replies import ReplyWriter
from bothends.lab.sandboxed import SandboxedProgram, SandboxLauncher, kill_group
from bothends.lab.sources import Sources, roles_of
from bothends.osutil.process_info import descendants

MAX_SECONDS: Final = 180  # of all measurements of a request
_LISTEN_TIMEOUT: Final = 10.0  # seconds until a server of the page listens
_POLL_INTERVAL: Final = 0.01  # seconds
_TIMEOUT: Final = 2.0  # seconds for a reply
_MAX_PROCESSES: Final = 1024


@dataclass(frozen=True, slots=True)
class _Target:
    """What is measured: an engine, or a server of the page."""

    name: str
    run: Callable[[], contextlib.AbstractContextManager[RunningTarget]]
    reason: str = ""  # why it cannot be measured


class _Stopped(Exception):
    """The user has ended the measurements."""


def measure_all(
    request: Measure, sandbox: Sandbox, attendant: Attendant, replies: ReplyWriter, folder: Path
) -> None:
    """Carry out a request, and send everything about it. Raises BothendsError."""

    def stop(_number: int, _frame: object) -> None:
        raise _Stopped

    signal.signal(signal.SIGTERM, stop)
    notes: list[str] = []
    try:
        _Measurement(request, sandbox, attendant, replies, folder).run(notes)
    except _Stopped:
        notes.append("ended by Stop")
    replies.send(MeasuredAll(notes))


class _Measurement:
    """The measurements of one request."""

    def __init__(
        self,
        request: Measure,
        sandbox: Sandbox,
        attendant: Attendant,
        replies: ReplyWriter,
        folder: Path,
    ) -> None:
        self._request = request
        self._attendant = attendant
        self._replies = replies
        self._folder = folder
        self._sandbox = sandbox
        self._server_cpu, self._generator_cpu = choose_cpus()
        self._starts = 0

    def run(self, notes: list[str]) -> None:
        """Measure everything; `notes`: where it is noted how that was done."""
        request = self._request
        targets = [*self._programs(), *map(self._engine, request.engines)]
        if not targets:
            raise UsageError("choose an engine, or keep a server on the page")
        seconds = len(targets) * request.rounds * (request.load.warmup + request.load.duration)
        if seconds > MAX_SECONDS:
            raise UsageError(f"that takes {seconds:.0f} s, and the lab allows {MAX_SECONDS} s")
        self._replies.send(Measuring([each.name for each in targets], request.load, request.rounds))
        notes.append(
            f"the server ran on CPU {self._server_cpu}, the generator on CPU {self._generator_cpu}"
            if self._server_cpu is not None
            else "the server and the generator shared one CPU"
        )
        rules: dict[int, str] = {}
        raise_fd_limit()
        order = random.Random(request.seed)
        with kill_targets_on_exit(), pinned_to_cpu(self._generator_cpu):
            for number in range(request.rounds):
                for place in order.sample(range(len(targets)), len(targets)):
                    self._measure(place, targets[place], number, rules)

    def _measure(self, place: int, target: _Target, number: int, rules: dict[int, str]) -> None:
        if target.reason:
            if number == 0:
                self._replies.send(Measured(place, number, skipped=target.reason))
            return
        try:
            if place not in rules:
                with target.run() as running:  # for this only: a server may serve one client
                    rules[place] = detect_rule(running.endpoint, tls=None, timeout=_TIMEOUT)
            with target.run() as running:
                plan = make_plan(self._request.load, running, rules[place])
                found = measure(
                    plan,
                    generator=select_generator("auto", plan),
                    on_progress=lambda at: self._replies.send(_sample(place, number, at)),
                    server_pid=running.pid,
                )
        except BothendsError as error:
            self._replies.send(Measured(place, number, skipped=escape_controls(str(error))))
            return
        self._replies.send(_result(place, number, found))

    def _programs(self) -> Iterator[_Target]:
        sources = Sources(self._sandbox, self._folder, self._replies.send)
        servers = [each for each in self._request.programs if each.kind == "server"]
        roles = roles_of(servers)
        for number, (each, role) in enumerate(zip(servers, roles, strict=True)):
            program = sources.prepare(number, each, role, with_lines=False)
            name = each.file if len(servers) == 1 else f"{role}: {each.file}"
            if program is None:
                yield _Target(name, contextlib.nullcontext, "it could not be built")  # type: ignore[arg-type]
            else:
                yield _Target(name, lambda program=program: self._run_program(program))  # type: ignore[misc]

    def _engine(self, name: str) -> _Target:
        if name not in registry.names():  # load() would import a module
            raise UnknownName("engine", name, "", "see `bothends engines`")
        target = engine_target(registry.load(name), registry.default_size(name))
        transport = self._request.transport
        reason = target.unsupported_reason(transport, self._request.load.connections)
        return _Target(name, lambda: run_target(target, transport, self._folder, self._server_cpu), reason)

    @contextlib.contextmanager
    def _run_program(self, program: SandboxedProgram) -> Iterator[RunningTarget]:
        """Start a server of the page, wait until it listens, and end it afterwards."""
        self._starts += 1
        scratch = self._folder / f"{program.number}-scratch-{self._starts}"
        scratch.mkdir()
        again = replace(program, role=f"{program.role} {self._starts}", scratch=scratch)
        launcher = SandboxLauncher(self._sandbox, [again], self._attendant.add)
        with pinned_to_cpu(self._server_cpu):
            process = launcher.start_untraced(again)
        try:
            endpoints = self._wait_until_listening(process)
            yield RunningTarget(endpoints, process.pid)
        finally:
            kill_group(process.pid)
            process.wait()

    def _wait_until_listening(self, process: subprocess.Popen[bytes]):  # type: ignore[no-untyped-def]
        deadline = time.monotonic() + _LISTEN_TIMEOUT
        while time.monotonic() < deadline:
            found = listeners(
                [process.pid, *descendants(process.pid, _MAX_PROCESSES)], self._request.transport
            )
            if found:
                return found[0]
            if process.poll() is not None:
                raise UsageError("the server has exited before it listened: its output has the reason")
            time.sleep(_POLL_INTERVAL)
        raise UsageError(f"the server does not listen over {self._request.transport}")


def make_plan(load: MeasuredLoad, running: RunningTarget, rule: str) -> RunPlan:
    """Return the plan of one measurement. `rule`: how the server replies, as `detect_rule` returns it."""
    newline = not running.endpoint.is_message_oriented
    return RunPlan(
        running.endpoint,
        numbered(load.size, rule, newline=newline, depth=load.depth),  # type: ignore[arg-type]
        connections=load.connections,
        depth=load.depth,
        schedule=Schedule(load.rate) if load.rate is not None else None,
        duration=load.duration,
        warmup=load.warmup,
        timeout=_TIMEOUT,
        reconnect=load.reconnect and load.depth == 1 and not running.endpoint.is_datagram,
    )


def _sample(place: int, number: int, progress: Progress) -> LoadSample:
    return LoadSample(place, number, round(progress.elapsed, 3), progress.completed, progress.faults)


def _result(place: int, number: int, found: Round) -> Measured:
    latency = found.latency
    figures = latency.percentiles_us | ({"max": latency.max_us} if latency.n else {})
    return Measured(
        place,
        number,
        round(found.per_s, 1),
        {name: round(value, 1) for name, value in figures.items()},
        str(found.faults) if found.faults.total else "",
        found.own.limit,
        escape_controls(found.ended),
        found.own.name,
        found.server.cpu_us_per_request if found.server is not None else None,
    )
