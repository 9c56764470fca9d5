"""Judge a program of the page by a contract, with the functions of `bothends check`.

1. All programs run in the sandbox, as in a run. Verdicts are sent as they come; the result at the end may
   differ, because failures with one cause are joined then.
2. One case can be run again and traced. Its checker runs in a thread, because TraceSession needs the main
   one: the case starts the program in a sandbox with a gate, at which strace attaches from outside. The
   checker is not traced: its lane has what the transcript says of it, and its ends of the packets.
3. The contract is a built-in one or a text, and a text with code is refused.
"""

from __future__ import annotations

import asyncio
import queue
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from bothends.check import contract as contracts
from bothends.check.case import Case, NotListening
from bothends.check.contract import Contract
from bothends.check.oracle import Oracle
from bothends.check.results import CaseOutcome, SuiteResult
from bothends.check.runner import SuiteRun
from bothends.check.sandbox.launcher import Sandbox, SandboxedStart
from bothends.check.subjects.client_under_test import ClientContext, ClientUnderTest
from bothends.check.subjects.process import subreaper
from bothends.check.subjects.server_under_test import ServerUnderTest
from bothends.check.suites.registry import cases, check_selection, suite_for
from bothends.check.transcript import Transcript
from bothends.errors import BothendsError, UsageError
from bothends.escaping import escape_controls
from bothends.lab.messages import Ended, Judge, Judged, JudgedAll, Judging, Started
from bothends.lab.picture import Picture, finding_to_json
from bothends.lab.replies import ReplyWriter
from bothends.lab.sandboxed import SandboxedProgram, add_program, attach_at_gate, open_gate
from bothends.lab.sources import Sources
from bothends.osutil.scratch import scratch_folder
from bothends.trace.capture.packets import PacketSource
from bothends.trace.capture.tracees import LOCAL_LAUNCHER, ProcessHandle
from bothends.trace.findings import run_rules
from bothends.trace.model import Trace
from bothends.trace.session import TraceSession

_JOBS: Final = 3  # cases at a time: a page is one of several
_CASE_TIMEOUT: Final = 60.0  # seconds of one traced case
_START_TIMEOUT: Final = 40.0  # seconds until the program of a traced case is at its gate
_MAX_POINTS: Final = 60_000  # of the trace of a case
_CHECKER: Final = "checker"  # its lane
_MAX_STEPS: Final = 1_000  # of the checker on the timeline: a case may open thousands of connections


def read_contract(request: Judge) -> Contract:
    """Return the contract of a request. Raises BothendsError: there is none, or its text is not valid."""
    if request.text:
        with scratch_folder("contract") as folder:
            return contracts.parse(request.text, "the contract", "contract", folder)
    if contracts.is_file_name(request.name):
        raise UsageError("a contract is a built-in one, or a text")
    return contracts.load(request.name)


def judge(
    request: Judge, sandbox: Sandbox, capture: PacketSource | None, replies: ReplyWriter, folder: Path
) -> None:
    """Carry out a request, and send everything about it. Raises BothendsError."""
    contract = read_contract(request)
    role = request.program.kind
    suite = suite_for(contract, role)
    if contract.needs_reference:
        raise UsageError(f"{contract.name} compares with a reference server, which the lab does not have")
    check_selection(contract, suite, [*request.cases, *filter(None, [request.case])])
    program = Sources(sandbox, folder, replies.send).prepare(
        0, request.program, role, with_lines=bool(request.case)
    )
    if program is None:
        replies.send(JudgedAll(None))
        return
    found = cases(suite, contract)
    own = replace(sandbox, folder=program.folder)
    with subreaper():
        if request.case:
            _CaseTrace(program, contract, found, suite, request.case, own, capture, replies).run()
            return
        replies.send(Judging(contract.name, [_describe(each) for each in found]))
        subject = _subject(role, contract, program, own)
        run = SuiteRun(subject, found, suite, only=request.cases, jobs=_JOBS)
        run.progress = lambda outcome: replies.send(Judged(_to_json(outcome, contract.name)))
        result = asyncio.run(_until_stopped(run))
        replies.send(JudgedAll(result.as_object() if result is not None else None))


class _HereClient(ClientUnderTest):
    """A client whose cases run in this network, where packets are captured, and one at a time."""

    @asynccontextmanager
    async def case_context(
        self, oracle: Oracle, transcript: Transcript, timeout: float
    ) -> AsyncIterator[ClientContext]:
        context = ClientContext(self, oracle, transcript, timeout)
        try:
            yield context
        finally:
            await context.close()


def _subject(
    role: str, contract: Contract, program: SandboxedProgram, sandbox: Sandbox, *, here: bool = False
) -> ServerUnderTest | ClientUnderTest:
    kind = ServerUnderTest if role == "server" else _HereClient if here else ClientUnderTest
    subject = kind(contract, program.argv)
    subject.cwd, subject.sandbox, subject.environment = program.folder, sandbox, program.environment
    return subject


async def _until_stopped(run: SuiteRun[Any]) -> SuiteResult | None:
    """Run a suite. Returns: None if SIGTERM has ended it."""
    task = asyncio.ensure_future(run.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return None


def _describe(case: Case[Any]) -> dict[str, str]:
    texts = {"stimulus": case.stimulus, "expectation": case.expectation, "why": case.why}
    return {"id": case.id} | {name: escape_controls(text) for name, text in texts.items()}


def _to_json(outcome: CaseOutcome, contract: str) -> dict[str, Any]:
    """Return an outcome as `bothends check --json` writes it."""
    found: dict[str, Any] = SuiteResult("", contract, "", (outcome,)).as_object()["outcomes"][0]
    return found


# One case, traced --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _GatedSandbox(Sandbox):
    """A sandbox in which the next program that is started waits at a gate, once `is_armed` returns True."""

    take_gate: Callable[[], socket.socket | None] = lambda: None
    descriptors: tuple[int, ...] = ()

    def prepare(self, *arguments: Any, **options: Any) -> SandboxedStart:
        """Prepare a start as `Sandbox.prepare` does, with the gate and the descriptors."""
        gate = self.take_gate()
        if gate is not None:
            options |= {"gate": gate.fileno()}
        return Sandbox.prepare(self, *arguments, **options, descriptors=self.descriptors)


class _CaseTrace:
    """One case of a suite, run in a thread and traced in this one. It is the launcher of the session."""

    attaches = True

    def __init__(
        self,
        program: SandboxedProgram,
        contract: Contract,
        found: Sequence[Case[Any]],
        suite: str,
        case: str,
        sandbox: Sandbox,
        capture: PacketSource | None,
        replies: ReplyWriter,
    ) -> None:
        self._program = program
        self._contract = contract
        self._cases = found
        self._suite = suite
        self._case = case
        self._capture = capture
        self._replies = replies
        self._trace = Trace(_MAX_POINTS)
        self._picture = Picture(self._trace, [program.role], replies.send, _CHECKER)
        self._steps = 0  # of the checker
        self._gates: queue.SimpleQueue[tuple[socket.socket, socket.socket] | None] = queue.SimpleQueue()
        self._is_armed = False
        lines = program.lines
        values = {each.name: getattr(sandbox, each.name) for each in fields(Sandbox)}
        descriptors = (lines.descriptor,) if lines is not None else ()
        self._sandbox = _GatedSandbox(**values, take_gate=self._take_gate, descriptors=descriptors)
        self._outcome: CaseOutcome | None = None
        self._error = ""
        self._thread = threading.Thread(target=self._run_case, name="case", daemon=True)

    def run(self) -> None:
        """Run the case, and send its timeline and its outcome."""
        role = self._program.role
        began = time.monotonic()
        picture = self._picture
        session = TraceSession(
            picture.write,
            on_idle=picture.idle,
            trace=self._trace,
            launcher=self,
            on_stall=picture.on_stall,
            time_limit=_CASE_TIMEOUT,
        )
        session.capture = self._capture
        traced = add_program(session, role, role, self._program.argv)
        picture.set_lines([(self._program, traced)])
        self._replies.send(Started([role, _CHECKER]))
        try:
            session.run()
        except BothendsError as error:
            self._error = self._error or escape_controls(str(error))
        self._thread.join(_CASE_TIMEOUT)
        picture.end()
        notes = [*self._trace.notes, *([self._error] if self._error else [])]
        findings = run_rules(self._trace, lambda *_: None)
        if self._outcome is not None:
            self._replies.send(Judged(_to_json(self._outcome, self._contract.name)))
        seconds = round(time.monotonic() - began, 3)
        self._replies.send(Ended("", [finding_to_json(each) for each in findings], [], notes, seconds))

    # The case, in its thread

    def _run_case(self) -> None:
        try:
            asyncio.run(self._attempt())
        except NotListening as error:
            self._error = f"the program {error.reason}"
        except BothendsError as error:
            self._error = escape_controls(str(error))
        finally:
            self._freeze()
            self._gates.put(None)

    async def _attempt(self) -> None:
        role = self._program.role
        subject = _subject(role, self._contract, self._program, self._sandbox, here=True)
        subject.own_network = role == "client"  # a client shows in a network of its own where it connects
        subject.case_context = self._freezing(subject.case_context)  # type: ignore[method-assign]
        run: SuiteRun[Any] = SuiteRun(subject, self._cases, self._suite)

        def arm() -> None:
            self._is_armed = True

        self._outcome = await run.run_case(self._case, arm)

    def _freezing(self, case_context: Any) -> Any:
        """Return the subject's function whose context ends the trace before the program is ended."""

        @asynccontextmanager
        async def freezing(oracle: Oracle, transcript: Transcript, timeout: float) -> AsyncIterator[Any]:
            transcript.observer = self._add_step
            async with case_context(oracle, transcript, timeout) as context:
                try:
                    yield context
                finally:
                    self._freeze()

        return freezing

    def _add_step(self, actor: str, event: str) -> None:
        """Draw what the checker did: an entry of the transcript, unless it is about the program."""
        role = self._program.role
        if actor == role or self._trace.frozen_at is not None or self._steps >= _MAX_STEPS:
            return
        self._steps += 1
        peer = "client" if role == "server" else "server"
        text = event if actor in (peer, "check") else f"{actor}: {event}"
        self._picture.add_untraced(time.time_ns(), text)

    def _freeze(self) -> None:
        if self._trace.frozen_at is None:
            self._trace.frozen_at = time.time_ns()

    def _take_gate(self) -> socket.socket | None:
        """Return a gate for the program that is started, if it is the one to trace."""
        if not self._is_armed:
            return None
        self._is_armed = False
        gate, inner = open_gate()
        self._gates.put((gate, inner))
        return inner

    # The launcher, in the main thread

    def start(
        self,
        role: str,
        strace: Sequence[str],
        argv: Sequence[str],
        *,
        inherit_stdin: bool,
        output: int | None,
    ) -> ProcessHandle:
        """Start the case, and attach strace to its program."""
        self._thread.start()
        try:
            taken = self._gates.get(timeout=_START_TIMEOUT)
        except queue.Empty:
            taken = None
        if taken is None:
            raise UsageError(self._error or "the case has not started the program")
        gate, inner = taken
        with gate, inner:
            self._program.first_ids, tracer = attach_at_gate(gate, strace)
        if tracer is None:
            raise UsageError("the program has not started")
        return tracer

    def signal(self, processes: Sequence[int], number: int) -> None:
        """Send a signal to processes that strace has shown."""
        LOCAL_LAUNCHER.signal(processes, number)
