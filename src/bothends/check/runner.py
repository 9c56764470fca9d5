"""Run the cases of a suite against one program, and collect their outcomes.

1. The first case of a suite is the gate: if it fails, the others are skipped.
2. The others run concurrently, up to `jobs` at a time, each with its own server if possible; exclusive cases
   come last, and a case starts after those in its `after`.
3. A case that failed only on a timeout is retried alone, with a longer timeout, because the machine may be
   busy. Any other failure is repeated at once, and so is a timeout of a server whose threads were all asleep.
   It counts if it fails again in one of two more attempts; otherwise it is said to be flaky.
4. The exit of a server is part of the evidence. Failures with the same cause are joined to one; the others
   are SKIP, and keep their points lost. `same_cause` says which failures of scenes have one cause.
5. The points that can be reached are those of the contract, whatever the program does.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Generic

from bothends.check.case import (
    LINE_NOT_KEPT,
    Case,
    CheckFailed,
    ContextT,
    FunctionError,
    Note,
    NotListening,
    Verdict,
)
from bothends.check.contract import make_oracle
from bothends.check.oracle import Oracle
from bothends.check.patterns import PatternTooSlow
from bothends.check.requirements import contract_skip_reason, possible_points, program_skip_reason
from bothends.check.results import CaseOutcome, SuiteResult
from bothends.check.same_cause import Instead, SameCause, WrongAnswer, join_scenes, join_variations
from bothends.check.subjects.interfaces import ProgramUnderTest
from bothends.check.transcript import Transcript
from bothends.errors import BothendsError, ServiceError
from bothends.escaping import escape_text

DEFAULT_TIMEOUT: Final = 3.0  # seconds: only a wrong program takes that long
DEFAULT_JOBS: Final = 6  # more than most machines have processors, because cases mostly wait
_CASE_TIMEOUT: Final = 60.0  # seconds on an idle machine; the longest correct case takes about five
_MAX_ATTEMPTS: Final = 3
_NOT_ASKED: Final = "not asked, because "  # the start of the reason of a case that a failure has prevented
_WORKED: Final = (Verdict.PASS, Verdict.INFO)
_SECOND_CLIENT: Final = {"tcp-idle-client"}  # cases that need a second client beside the first
_TRACE_TIMEOUT: Final = 1.0  # seconds: the timeout of a run that is only traced

OutcomeCallback = Callable[[CaseOutcome], None]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def load_factor() -> float:
    """Return how much slower this machine is than an idle one, from 1 to 6, by its load average."""
    return round(min(6.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))), 1)


def selected_cases(cases: Sequence[Case[ContextT]], only: Sequence[str]) -> list[Case[ContextT]]:
    """Return the cases whose ids are in `only`, and those that they come after; all if `only` is empty."""
    if not only:
        return list(cases)
    earlier = {name for case in cases if case.id in only for name in case.after}
    return [case for case in cases if case.id in {*only, *earlier}]


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
    _possible: dict[str, float] = field(default_factory=dict)  # the points of each case, by its id
    _left: set[str] = field(default_factory=set)  # cases in which the server exited unasked, with status 0
    _crashes: dict[str, str] = field(default_factory=dict)  # case -> the exception that ended the program
    _answers: dict[str, WrongAnswer | None] = field(default_factory=dict)  # of scenes, at their last attempt
    _failed_start: str = ""  # the case that failed because the program could not be started again
    _contract_failed: set[str] = field(default_factory=set)  # cases in which the contract's own code failed

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
        self._possible = possible_points(
            self.cases, contract, oracle, thorough=self.thorough, spawned=self.subject.is_spawned
        )
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
                self._join_crashes()
                await self._join_scenes(oracle)
                await self._explain_gate(oracle)
                await self._trace_failures(oracle)
        finally:
            await self.subject.close()
        outcomes = tuple(
            self._described(case, self._outcomes[case.id]) for case in self.cases if case.id in self._outcomes
        )
        return SuiteResult(
            escape_text(self.subject.title),
            contract.name,
            self.suite,
            outcomes,
            round(loop.time() - started_at, 2),
            (*notes, *self._contract_notes(), *self.subject.notes),
        )

    async def run_case(self, case_id: str, on_prepared: Callable[[], None]) -> CaseOutcome:
        """Run one case once, without its first case and without repetitions: to watch a failure.

        `on_prepared`: called before the program is started for the case. If the program cannot be started at
        all, it is called, too, before that is tried again.

        Raises:
            NotListening: the program does not start.
            BothendsError: the command, the endpoint or the contract is unusable.
        """
        contract = self.subject.contract
        oracle = make_oracle(contract)
        case = next(each for each in self.cases if each.id == case_id)
        self.subject.load_factor = load_factor()
        self._possible = possible_points(
            self.cases, contract, oracle, thorough=True, spawned=self.subject.is_spawned
        )
        timeout = _TRACE_TIMEOUT * self.subject.load_factor
        try:
            try:
                await self.subject.prepare()
            except NotListening:
                on_prepared()
                await self.subject.prepare()
            else:
                on_prepared()
            async with self.subject.answering(oracle, timeout):
                outcome, _ = await self._attempt(case, oracle, timeout, 1)
        finally:
            await self.subject.close()
        return self._described(case, outcome)

    def _contract_notes(self) -> list[str]:
        """Return a note if points were given because the contract's own code failed."""
        skipped = [each for each, outcome in self._outcomes.items() if outcome.verdict is Verdict.SKIP]
        count = len(self._contract_failed.intersection(skipped))
        if not count:
            return []
        cases = f"{count} case{'s' * (count != 1)}"
        return [f"the contract's own code, or its reference server, failed in {cases}, which cost nothing"]

    def _described(self, case: Case[ContextT], outcome: CaseOutcome) -> CaseOutcome:
        """Return an outcome with what its case does, and why it is asked."""
        reason = self.subject.contract.reason(case.id)
        why = f"{case.why} {reason}" if reason else case.why
        return replace(
            outcome,
            stimulus=escape_text(case.stimulus),
            expectation=escape_text(case.expectation),
            why=escape_text(why),
        )

    def _skip_reason(self, case: Case[ContextT], oracle: Oracle) -> str:
        contract, spawned = self.subject.contract, self.subject.is_spawned
        return contract_skip_reason(case, contract, oracle, thorough=self.thorough, spawned=spawned)

    def _record_not_listening(self, error: NotListening, oracle: Oracle) -> None:
        first, *others = self.cases
        self._record(CaseOutcome(
            first.id, Verdict.FAIL, expected=error.expected, happened=error.reason,
            likely_cause=error.cause or "the program does not start, or listens on another endpoint",
            stderr_tail=error.stderr_tail, max_points=self._possible[first.id],
        ))  # fmt: skip
        for case in others:
            if case not in self.selected_cases():
                continue
            if reason := self._skip_reason(case, oracle):
                self._record(CaseOutcome(case.id, Verdict.SKIP, detail=reason, max_points=0.0))
            else:
                self._record_not_asked(case.id, error.consequence)

    async def _run_cases(self, oracle: Oracle) -> None:
        gate = self.cases[0]
        selected = self.selected_cases()
        pending = []
        for case in self.cases:
            if case not in selected and case is not gate:
                continue
            if reason := self._skip_reason(case, oracle):
                self._record(CaseOutcome(case.id, Verdict.SKIP, detail=reason, max_points=0.0))
            elif reason := program_skip_reason(case, self.subject):
                self._record(self._outcome(case.id, Verdict.SKIP, detail=reason, earned=True))
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
            if case.id in self._left | _SECOND_CLIENT
            and (outcome := self._outcomes.get(case.id)) is not None
            and outcome.verdict is Verdict.FAIL
        ]
        timeout = _TRACE_TIMEOUT * self.subject.load_factor
        if (
            len(failed) < 2
            or not self._left
            or not await self.subject.leaves_after_one_client(oracle, timeout)
        ):
            return
        first, *others = failed
        self._outcomes[first.case] = replace(first, likely_cause="serves one client, and exits")
        for outcome in others:
            self._skip_joined(outcome.case, f"{_NOT_ASKED}the server exits after one client", first.case)

    def _join_crashes(self) -> None:
        """Make one failure of those in which the same exception ended the program at the same place."""
        first: dict[str, str] = {}
        for case in self.cases:
            crash = self._crashes.get(case.id, "")
            if not crash or self._outcomes[case.id].verdict is not Verdict.FAIL:
                continue
            if crash in first:
                self._skip_joined(case.id, f"not asked again: {crash} is the cause here, too", first[crash])
            first.setdefault(crash, case.id)

    async def _join_scenes(self, oracle: Oracle) -> None:
        """Make one failure of those in scenes that have one cause."""
        verdicts = {name: outcome.verdict for name, outcome in self._outcomes.items()}
        scenes = [case for case in self.cases if case.exchanges]
        passed = frozenset(case.id for case in scenes if verdicts.get(case.id) in _WORKED)
        failed = {name: self._answers.get(name) for name in verdicts if verdicts[name] is Verdict.FAIL}
        ids = {case.id for case in scenes}
        answers = {name: answer for name, answer in failed.items() if answer is not None and name in ids}
        for found in join_scenes(scenes, passed, answers):
            self._join(found)
            first = self._outcomes[found.case]
            if found.never_right and not self._crashes.get(found.case):
                cause = await self._explain_never_right(found, oracle)
                self._outcomes[found.case] = replace(first, likely_cause=cause)
            elif first.likely_cause == LINE_NOT_KEPT:
                self._outcomes[found.case] = replace(
                    first,
                    likely_cause=f"{found.describe()}, as in {_count(len(found.others), 'other scene')}",
                )
        for found in join_variations(self.cases, failed):
            self._join(found)

    async def _explain_never_right(self, found: SameCause, oracle: Oracle) -> str:
        """Return the cause of failures if no line was right in any scene."""
        if found.answer is None or found.answer.instead is not Instead.TEXT:
            return f"{found.describe()}, and no line of another scene is right"
        greeting = ""
        if found.exchange is not None and found.exchange.request:
            timeout = _TRACE_TIMEOUT * self.subject.load_factor
            greeting = await self.subject.explain_gate(oracle, timeout)
        return greeting or "sends the same wrong text in every scene"

    def _join(self, found: SameCause) -> None:
        """Keep the first of these failures; the others are SKIP."""
        what = "no line is right" if found.never_right else found.describe()
        for name in found.others:
            self._skip_joined(name, f"not asked again: {what} here, too", found.case)

    def _skip_joined(self, name: str, reason: str, first: str) -> None:
        """Record a failure as SKIP, because `first` has the same cause, with those that were joined to it."""
        for case_id, outcome in self._outcomes.items():
            if outcome.verdict is Verdict.SKIP and outcome.detail.endswith(f": see {name}"):
                detail = f"{outcome.detail.removesuffix(name)}{first}"
                self._outcomes[case_id] = replace(outcome, detail=detail)
        self._outcomes[name] = self._outcome(name, Verdict.SKIP, detail=f"{reason}: see {first}")

    async def _explain_gate(self, oracle: Oracle) -> None:
        """Find out by trying why the first case failed, on which all others depend."""
        gate = self.cases[0].id
        outcome = self._outcomes.get(gate)
        if outcome is None or outcome.verdict is not Verdict.FAIL or self._crashes.get(gate):
            return
        if cause := await self.subject.explain_gate(oracle, _TRACE_TIMEOUT * self.subject.load_factor):
            self._outcomes[gate] = replace(outcome, likely_cause=cause)

    def selected_cases(self) -> list[Case[ContextT]]:
        """Return the cases to run: those in `only`, and those that they come after."""
        return selected_cases(self.cases, self.only)

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
                except ServiceError as error:  # the contract's own code failed, not the program
                    self._contract_failed.add(case.id)
                    what = "" if isinstance(error, FunctionError) else "the contract gives no correct reply: "
                    note = Note(Verdict.SKIP, f"{what}{error}")
                except PatternTooSlow as error:
                    not_asked = f"{_NOT_ASKED}{error}"
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
        weight = self._possible[case.id]
        if not_asked:
            return self._outcome(case.id, Verdict.SKIP, attempts=attempt, detail=not_asked), False
        if failure is not None:
            likely_cause = failure.cause or likely_cause
            self._crashes[case.id] = failure.crash
            answer = failure.answer
            self._answers[case.id] = answer and replace(answer, crash=failure.crash)
            if failure.left:
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
            entries = tuple(transcript.entries()) if note.verdict is Verdict.NON_STRICT else ()
            return CaseOutcome(
                case.id, note.verdict, seconds, attempt, detail=note.text, transcript=entries,
                points=weight, max_points=weight,
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
        self._outcomes[outcome.case] = outcome
        self.progress(outcome)

    def _record_not_asked(self, case_id: str, reason: str) -> None:
        """Record a case that could not be asked because of a failure. Its points are lost, not left out."""
        self._record(self._outcome(case_id, Verdict.SKIP, detail=f"{_NOT_ASKED}{reason}"))

    def _outcome(
        self, case_id: str, verdict: Verdict, *, detail: str, attempts: int = 1, earned: bool = False
    ) -> CaseOutcome:
        """Return an outcome with the points of its case, `earned` or lost."""
        points = self._possible[case_id]
        return CaseOutcome(
            case_id,
            verdict,
            attempts=attempts,
            detail=detail,
            points=points if earned else 0.0,
            max_points=points,
        )
