"""Run the cases of a suite against one program, and collect their outcomes.

1. The first case of a suite is the gate: if it fails, the others are skipped.
2. The others run concurrently, up to `jobs` at a time, each with its own server if possible; exclusive cases
   come last, and a case starts after those in its `after`.
3. A case that failed only on a timeout is retried alone, with a longer timeout, because the machine may be
   busy. Any other failure is repeated at once, and so is a timeout of a server whose threads were all asleep.
   It counts if it fails again in one of two more attempts; otherwise it is said to be flaky.
4. The exit of a server is part of the evidence.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Generic

from bothends.check.case import Case, CheckFailed, ContextT, Note, NotListening, Verdict
from bothends.check.contract import make_oracle
from bothends.check.oracle import Oracle
from bothends.check.patterns import PatternTooSlow
from bothends.check.requirements import skip_reason
from bothends.check.results import CaseOutcome, SuiteResult
from bothends.check.subjects.interfaces import ProgramUnderTest
from bothends.check.transcript import Transcript
from bothends.errors import BothendsError, ServiceError
from bothends.escaping import escape_text

DEFAULT_TIMEOUT: Final = 3.0  # seconds: only a wrong program takes that long
DEFAULT_JOBS: Final = 6  # more than most machines have processors, because cases mostly wait
_CASE_TIMEOUT: Final = 60.0  # seconds on an idle machine; the longest correct case takes about five
_MAX_ATTEMPTS: Final = 3
_NOT_ASKED: Final = "not asked, because "  # the start of the reason of a case that a failure has prevented
_TRACE_TIMEOUT: Final = 1.0  # seconds: the timeout of a run that is only traced

OutcomeCallback = Callable[[CaseOutcome], None]


def load_factor() -> float:
    """Return how much slower this machine is than an idle one, from 1 to 6, by its load average."""
    return round(min(6.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))), 1)


@dataclass
class SuiteRun(Generic[ContextT]):
    """A run of a suite against one program.

    `only`: the ids of the cases to run, if not all; `trace`: a folder for pages with the calls and packets of
    failed cases; `timeout`: seconds for each step; `progress`: called with each outcome.
    """

    subject: ProgramUnderTest[ContextT]
    cases: Sequence[Case[ContextT]]
    suite: str = ""
    only: Sequence[str] = ()
    thorough: bool = False
    trace: Path | None = None
    jobs: int = DEFAULT_JOBS
    timeout: float = DEFAULT_TIMEOUT
    progress: OutcomeCallback = lambda _outcome: None
    _outcomes: dict[str, CaseOutcome] = field(default_factory=dict)
    _left: set[str] = field(default_factory=set)  # cases in which the server exited unasked, with status 0
    _failed_start: str = ""  # the case that failed because the program could not be started again

    async def run(self) -> SuiteResult:
        """Run the suite. Faults of the program are in the result.

        Raises:
            BothendsError: the command, the endpoint or the contract is unusable.
        """
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        contract = self.subject.contract
        oracle = make_oracle(contract)
        self.subject.load_factor = load_factor()
        notes = [self.subject.sandbox.note] if self.subject.sandbox else []
        try:
            startup = await self.subject.prepare()
            self.subject.load_factor = round(min(8.0, max(self.subject.load_factor, startup)), 1)
        except NotListening as error:
            self._record_not_listening(error, oracle)
        else:
            async with self.subject.answering(oracle, self.timeout * self.subject.load_factor):
                await self._run_cases(oracle)
                await self._join_exits(oracle)
                await self._trace_failures(oracle)
        finally:
            await self.subject.close()
        outcomes = tuple(self._outcomes[case.id] for case in self.cases if case.id in self._outcomes)
        return SuiteResult(
            escape_text(self.subject.title),
            contract.name,
            self.suite,
            outcomes,
            round(loop.time() - started_at, 2),
            (*notes, *self.subject.notes),
        )

    def _record_not_listening(self, error: NotListening, oracle: Oracle) -> None:
        contract = self.subject.contract
        first, *others = self.cases
        self._record(CaseOutcome(
            first.id, Verdict.FAIL, expected="a server that listens", happened=error.reason,
            likely_cause="the program does not start, or listens on another endpoint",
            stderr_tail=error.stderr_tail, max_points=contract.weight(first.id),
        ))  # fmt: skip
        for case in others:
            if case not in self.selected_cases():
                continue
            if reason := skip_reason(case, contract, oracle, self.subject, self.thorough):
                self._record(CaseOutcome(case.id, Verdict.SKIP, detail=reason))
            else:
                self._record_not_asked(case.id, "the server does not listen")

    async def _run_cases(self, oracle: Oracle) -> None:
        gate = self.cases[0]
        selected = self.selected_cases()
        pending = []
        for case in self.cases:
            reason = skip_reason(case, self.subject.contract, oracle, self.subject, self.thorough)
            if case not in selected and case is not gate:
                continue
            if reason:
                self._record(CaseOutcome(case.id, Verdict.SKIP, detail=reason))
            else:
                pending.append(case)
        if gate in pending:
            await self._run_case(gate, oracle)
            pending.remove(gate)
            if self._outcomes[gate.id].verdict is Verdict.FAIL:
                for case in pending:
                    self._record_not_asked(case.id, f"{gate.id} must pass first")
                return
        jobs = asyncio.Semaphore(self.jobs if self.subject.parallel else 1)
        finished = {case.id: asyncio.Event() for case in self.cases}
        for case_id in self._outcomes:
            finished[case_id].set()

        async def run_in_order(case: Case[ContextT]) -> None:
            for earlier in case.after:
                if earlier in {each.id for each in pending}:
                    await finished[earlier].wait()
            async with jobs:
                await self._run_case(case, oracle)
            finished[case.id].set()

        concurrent = [case for case in pending if not case.exclusive]
        async with asyncio.TaskGroup() as tasks:
            for case in concurrent:
                tasks.create_task(run_in_order(case))
        for case in pending:
            if case.exclusive:
                await self._run_case(case, oracle)
        for case in concurrent:
            if (outcome := self._outcomes[case.id]).verdict is Verdict.FAIL and outcome.attempts == 0:
                await self._retry_alone(case, oracle)

    async def _join_exits(self, oracle: Oracle) -> None:
        """Make one failure of those that follow from a server that leaves after its first client."""
        failed = [
            outcome
            for case in self.cases
            if case.id in self._left and (outcome := self._outcomes[case.id]).verdict is Verdict.FAIL
        ]
        timeout = _TRACE_TIMEOUT * self.subject.load_factor
        if len(failed) < 2 or not await self.subject.leaves_after_one_client(oracle, timeout):
            return
        first, *others = failed
        self._outcomes[first.case] = replace(first, likely_cause="serves one client, and exits")
        for outcome in others:
            reason = f"{_NOT_ASKED}the server exits after one client: see {first.case}"
            self._outcomes[outcome.case] = CaseOutcome(
                outcome.case, Verdict.SKIP, detail=reason, max_points=outcome.max_points
            )

    def selected_cases(self) -> list[Case[ContextT]]:
        """Return the cases to run: those in `only`, and those that they come after."""
        if not self.only:
            return list(self.cases)
        earlier = {name for case in self.cases if case.id in self.only for name in case.after}
        return [case for case in self.cases if case.id in {*self.only, *earlier}]

    async def _run_case(self, case: Case[ContextT], oracle: Oracle) -> None:
        for earlier in case.after:
            if reason := self._obstacle(earlier):
                self._record_not_asked(case.id, reason)
                return
        outcome, timed_out = await self._attempt(case, oracle, self.timeout * self.subject.load_factor, 1)
        if outcome.verdict is not Verdict.FAIL:
            self._record(outcome)
        elif not timed_out:
            self._record(await self._repeat(case, oracle, outcome))
        elif case.exclusive or case is self.cases[0]:
            await self._retry_alone(case, oracle)
        else:
            self._outcomes[case.id] = replace(outcome, attempts=0)  # to be retried after all others

    def _obstacle(self, earlier: str) -> str:
        """Return why a case cannot be asked that comes after `earlier`; "" if it can."""
        outcome = self._outcomes.get(earlier)
        if outcome is not None and outcome.verdict is Verdict.FAIL:
            return f"{earlier} must pass first"
        if outcome is not None and outcome.verdict is Verdict.SKIP and _NOT_ASKED in outcome.detail:
            return outcome.detail.removeprefix(_NOT_ASKED)
        return ""

    async def _repeat(self, case: Case[ContextT], oracle: Oracle, failure: CaseOutcome) -> CaseOutcome:
        """Repeat a case that has failed. Returns: the failure if it fails again, or else that it is flaky."""
        timeout = self.timeout * self.subject.load_factor
        for attempt in range(2, _MAX_ATTEMPTS + 1):
            outcome, _ = await self._attempt(case, oracle, timeout, attempt)
            if outcome.verdict is Verdict.SKIP:  # it cannot be asked again
                return failure
            if outcome.verdict is Verdict.FAIL:
                again = (
                    f"{failure.happened} (in 2 of {attempt} attempts)" if attempt > 2 else failure.happened
                )
                return replace(failure, happened=again, attempts=attempt)
        return replace(
            failure, verdict=Verdict.NON_STRICT, attempts=_MAX_ATTEMPTS, points=failure.max_points,
            detail=f"flaky: failed in 1 of {_MAX_ATTEMPTS} attempts: {failure.happened}",
        )  # fmt: skip

    async def _retry_alone(self, case: Case[ContextT], oracle: Oracle) -> None:
        """Retry a case with longer timeouts, while no other case runs, until two attempts agree."""
        failures = 1
        outcome = None
        for attempt in range(2, _MAX_ATTEMPTS + 1):
            outcome, _ = await self._attempt(
                case, oracle, self.timeout * self.subject.load_factor * attempt, attempt
            )
            failures += outcome.verdict is Verdict.FAIL
            if failures == 2 or attempt - failures == 2:
                break
        assert outcome is not None
        self._record(outcome)

    async def _attempt(
        self, case: Case[ContextT], oracle: Oracle, timeout: float, attempt: int
    ) -> tuple[CaseOutcome, bool]:
        """Run a case once. Returns: its outcome, and whether it failed only on a timeout."""
        loop = asyncio.get_running_loop()
        transcript = Transcript()
        started_at = loop.time()
        note: Note | None = None
        failure: CheckFailed | None = None
        stderr_tail, likely_cause, not_asked = "", case.likely_cause, ""
        # A longer timeout for each step, as over an impaired path, prolongs the timeout of the case, too.
        case_timeout = round(
            _CASE_TIMEOUT * self.subject.load_factor * max(1.0, self.timeout / DEFAULT_TIMEOUT)
        )
        try:
            async with self.subject.case_context(oracle, transcript, timeout) as context:
                try:
                    async with asyncio.timeout(case_timeout):
                        note = await case.run(context)
                except CheckFailed as error:
                    failure = error
                except TimeoutError:
                    failure = CheckFailed(
                        case.expectation, f"not done within {case_timeout} s", timed_out=True
                    )
                except ServiceError as error:  # the contract's own function failed, not the program
                    note = Note(Verdict.SKIP, f"the contract gives no correct reply: {error}")
                except PatternTooSlow as error:
                    not_asked = f"not asked, because {error}"
                except OSError as error:  # a call of the checker failed, which does not blame the program
                    note = Note(Verdict.SKIP, f"the case could not run: {error.strerror or error}")
                if failure is not None:
                    failure, stderr_tail = await context.diagnose(failure)
        except NotListening as error:
            likely_cause = "the program does not start again after it has run"
            if error.port_in_use or self._failed_start not in ("", case.id):
                text = error.reason if error.port_in_use else f"{error.reason}, as in {self._failed_start}"
                not_asked = f"{_NOT_ASKED}the server {text}"
            else:
                self._failed_start = case.id
                failure, stderr_tail = CheckFailed("a server that listens", error.reason), error.stderr_tail
        except BothendsError as error:
            failure = CheckFailed("a server that listens", str(error))
        weight = self.subject.contract.weight(case.id)
        if not_asked:
            return CaseOutcome(
                case.id, Verdict.SKIP, 0.0, attempt, detail=not_asked, max_points=weight
            ), False  # fmt: skip
        if failure is not None:
            likely_cause = failure.mistake or likely_cause
        if failure is not None and failure.left:
            self._left.add(case.id)
        seconds = round(loop.time() - started_at, 3)
        if failure is not None:
            relaxed = case.id in self.subject.contract.relax
            outcome = CaseOutcome(
                case.id, Verdict.NON_STRICT if relaxed else Verdict.FAIL, seconds, attempt,
                detail="the contract allows this failure" if relaxed else "",
                expected=failure.expected, happened=failure.happened, likely_cause=likely_cause,
                stderr_tail=stderr_tail, transcript=tuple(transcript.entries()),
                points=weight if relaxed else 0.0, max_points=weight,
            )  # fmt: skip
            return outcome, failure.timed_out
        if note is not None:
            counts = note.verdict in (Verdict.PASS, Verdict.NON_STRICT)
            non_strict = note.verdict is Verdict.NON_STRICT
            entries = tuple(transcript.entries()) if non_strict else ()
            return CaseOutcome(
                case.id, note.verdict, seconds, attempt, detail=note.text, transcript=entries,
                points=weight if counts else 0.0, max_points=weight if counts else 0.0,
            ), False  # fmt: skip
        return CaseOutcome(case.id, Verdict.PASS, seconds, attempt, points=weight, max_points=weight), False

    async def _trace_failures(self, oracle: Oracle) -> None:
        """Run each failed case once more, and write a page with its calls and packets."""
        if self.trace is None:
            return
        by_id = {case.id: case for case in self.cases}
        for name, outcome in list(self._outcomes.items()):
            if outcome.verdict is Verdict.FAIL:
                page = (self.trace / f"{name}.html").absolute()
                self.subject.trace = page
                await self._attempt(
                    by_id[name], oracle, _TRACE_TIMEOUT * self.subject.load_factor, outcome.attempts
                )
                if page.exists():
                    self._outcomes[name] = replace(outcome, evidence=str(page))
        self.subject.trace = None

    def _record(self, outcome: CaseOutcome) -> None:
        if outcome.verdict is Verdict.SKIP and not outcome.detail.startswith(_NOT_ASKED):
            outcome = replace(outcome, points=0.0, max_points=0.0)
        self._outcomes[outcome.case] = outcome
        self.progress(outcome)

    def _record_not_asked(self, case_id: str, reason: str) -> None:
        """Record a case that could not be asked because of a failure. Its points are lost, not left out."""
        weight = self.subject.contract.weight(case_id)
        self._record(CaseOutcome(case_id, Verdict.SKIP, detail=f"{_NOT_ASKED}{reason}", max_points=weight))
