"""Which cases run when, and what becomes of their endings.

1. The first case of a suite decides whether the others are asked at all.
2. Then they run at once, as many as `jobs`, each with a server of its own where that can be; cases that want
   the machine to themselves come last, and cases after others when those have ended.
3. A case in which something only came too late is tried again alone, with more patience: on a busy machine it
   may be the machine. What was wrong in another way stays wrong, and so is what came too
   late from a server that does nothing but wait.
4. A server that has died is part of the evidence.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from bothends.check.case import Case, CheckFailed, Note, Verdict
from bothends.check.contract import make_oracle
from bothends.check.errors import NotListening
from bothends.check.oracle import Oracle
from bothends.check.requirements import skip_reason
from bothends.check.results import CaseOutcome, SuiteResult
from bothends.check.subjects.interfaces import ProgramUnderTest
from bothends.check.transcript import Transcript
from bothends.errors import BothendsError, ServiceError
from bothends.escaping import escape_text

DEFAULT_TIMEOUT: Final = 3.0  # seconds: only what is wrong takes them
DEFAULT_JOBS: Final = 6  # most cases wait most of the time, so more than there are processors
_CASE_TIMEOUT: Final = 60.0  # seconds for a case on an idle machine; the longest right one takes about five
_MAX_ATTEMPTS: Final = 3
_TRACE_TIMEOUT: Final = 1.0  # seconds of patience for a run that is only drawn

OutcomeCallback = Callable[[CaseOutcome], None]


def load_factor() -> float:
    """How much slower this machine is now than when it is idle: 1 to 6."""
    return round(min(6.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))), 1)


@dataclass
class SuiteRun:
    """One program under one suite."""

    subject: ProgramUnderTest
    cases: Sequence[Case]
    suite: str = ""
    only: Sequence[str] = ()
    thorough: bool = False
    trace: Path | None = None
    jobs: int = DEFAULT_JOBS
    timeout: float = DEFAULT_TIMEOUT
    progress: OutcomeCallback = lambda _outcome: None
    _outcomes: dict[str, CaseOutcome] = field(default_factory=dict)

    async def run(self) -> SuiteResult:
        """Judge it.

        Raises:
            BothendsError: the caller's mistake; what is wrong with the program is in the result.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        contract = self.subject.contract
        known = make_oracle(contract)
        self.subject.load_factor = load_factor()
        notes = [self.subject.sandbox.note] if self.subject.sandbox else []
        try:
            took = await self.subject.prepare()
            self.subject.load_factor = round(min(8.0, max(self.subject.load_factor, took)), 1)
        except NotListening as error:
            self._record_not_listening(error)
        else:
            if self.subject.is_spawned and not self.subject.parallel:
                notes.append(
                    f"it insists on {self.subject.fixed_endpoint}, so its cases run one after another"
                )
            await self._run_cases(known)
            await self._trace_failures(known)
        finally:
            await self.subject.close()
        outcomes = tuple(self._outcomes[case.id] for case in self.cases if case.id in self._outcomes)
        return SuiteResult(
            escape_text(self.subject.title),
            contract.name,
            self.suite,
            outcomes,
            round(loop.time() - began, 2),
            tuple(notes),
        )

    def _record_not_listening(self, error: NotListening) -> None:
        first, *others = self.cases
        self._record(first, CaseOutcome(
            first.id, Verdict.FAIL, expected="a server that listens", happened=error.reason,
            mistake="it doesn't start, or listens elsewhere", complaint=error.stderr_tail,
        ))  # fmt: skip
        for case in others:
            if case in self.selected_cases():
                self._record(case, CaseOutcome(case.id, Verdict.SKIP, detail="there is no server to ask"))

    async def _run_cases(self, oracle: Oracle) -> None:
        gate = self.cases[0]
        asked = self.selected_cases()
        wanted = []
        for case in self.cases:
            reason = skip_reason(case, self.subject.contract, oracle, self.subject, self.thorough)
            if case not in asked and case is not gate:
                continue
            if reason:
                self._record(case, CaseOutcome(case.id, Verdict.SKIP, detail=reason))
            else:
                wanted.append(case)
        if gate in wanted:
            await self._run_case(gate, oracle)
            wanted.remove(gate)
            if self._outcomes[gate.id].verdict is Verdict.FAIL:
                for case in wanted:
                    self._record(
                        case,
                        CaseOutcome(
                            case.id, Verdict.SKIP, detail=f"{gate.id} failed: nothing else could be told"
                        ),
                    )
                return
        jobs = asyncio.Semaphore(self.jobs if self.subject.parallel else 1)
        ended = {case.id: asyncio.Event() for case in self.cases}
        for case_id in self._outcomes:
            ended[case_id].set()

        async def one(case: Case) -> None:
            for before in case.after:
                if before in {each.id for each in wanted}:
                    await ended[before].wait()
            async with jobs:
                await self._run_case(case, oracle)
            ended[case.id].set()

        together = [case for case in wanted if not case.exclusive]
        async with asyncio.TaskGroup() as tasks:
            for case in together:
                tasks.create_task(one(case))
        for case in wanted:
            if case.exclusive:
                await self._run_case(case, oracle)
        for case in together:
            if (outcome := self._outcomes[case.id]).verdict is Verdict.FAIL and outcome.attempts == 0:
                await self._retry_alone(case, oracle)

    def selected_cases(self) -> list[Case]:
        """What is asked for, and what comes before that."""
        if not self.only:
            return list(self.cases)
        before = {name for case in self.cases if case.id in self.only for name in case.after}
        return [case for case in self.cases if case.id in {*self.only, *before}]

    async def _run_case(self, case: Case, oracle: Oracle) -> None:
        for before in case.after:
            if before in self._outcomes and self._outcomes[before].verdict is Verdict.FAIL:
                self._record(case, CaseOutcome(case.id, Verdict.SKIP, detail=f"{before} failed"))
                return
        outcome, late = await self._attempt(case, oracle, self.timeout * self.subject.load_factor, 1)
        if not late:
            self._record(case, outcome)
        elif case.exclusive or case is self.cases[0]:
            await self._retry_alone(case, oracle)
        else:
            self._outcomes[case.id] = _with_attempts(outcome, 0)  # until all others have ended

    async def _retry_alone(self, case: Case, oracle: Oracle) -> None:
        """Try a case alone and with more patience, until it has gone one way twice."""
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
        self._record(case, outcome)

    async def _attempt(
        self, case: Case, oracle: Oracle, timeout: float, attempt: int
    ) -> tuple[CaseOutcome, bool]:
        """How a case ends this time, and whether it failed only for being late."""
        loop = asyncio.get_running_loop()
        transcript = Transcript()
        began = loop.time()
        remark: Note | None = None
        failed: CheckFailed | None = None
        complaint = ""
        # Who is told to be more patient, as over a bad path, is so with the whole case too.
        whole = round(_CASE_TIMEOUT * self.subject.load_factor * max(1.0, self.timeout / DEFAULT_TIMEOUT))
        try:
            async with self.subject.case_context(oracle, transcript, timeout) as one:
                try:
                    async with asyncio.timeout(whole):
                        remark = await case.run(one)
                except CheckFailed as error:
                    failed = error
                except TimeoutError:
                    failed = CheckFailed(case.expectation, f"it isn't done after {whole} s", timed_out=True)
                except ServiceError as error:  # no more does what the teacher wrote
                    remark = Note(Verdict.SKIP, f"the contract doesn't say what is right: {error}")
                except OSError as error:  # a call of ours that says nothing of the program
                    remark = Note(Verdict.SKIP, f"it couldn't be tried: {error.strerror or error}")
                if failed is not None:
                    failed, complaint = await one.diagnose(failed)
        except NotListening as error:
            failed, complaint = CheckFailed("a server that listens", error.reason), error.stderr_tail
        except BothendsError as error:
            failed = CheckFailed("a server that listens", str(error))
        seconds = round(loop.time() - began, 3)
        most = self.subject.contract.weight(case.id)
        if failed is not None:
            relaxed = case.id in self.subject.contract.relax
            outcome = CaseOutcome(
                case.id, Verdict.NON_STRICT if relaxed else Verdict.FAIL, seconds, attempt,
                detail="the contract lets it pass" if relaxed else "",
                expected=failed.expected, happened=failed.happened, mistake=case.likely_cause,
                complaint=complaint, transcript=tuple(transcript.entries()),
                points=most if relaxed else 0.0, most=most,
            )  # fmt: skip
            return outcome, failed.timed_out
        if remark is not None:
            counts = remark.verdict in (Verdict.PASS, Verdict.NON_STRICT)
            strict = remark.verdict is Verdict.NON_STRICT
            entries = tuple(transcript.entries()) if strict else ()
            return CaseOutcome(
                case.id, remark.verdict, seconds, attempt, detail=remark.text, transcript=entries,
                points=most if counts else 0.0, most=most if counts else 0.0,
            ), False  # fmt: skip
        return CaseOutcome(case.id, Verdict.PASS, seconds, attempt, points=most, most=most), False

    async def _trace_failures(self, oracle: Oracle) -> None:
        """Try what failed once more, each with its calls and packets drawn on a page."""
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

    def _record(self, case: Case, outcome: CaseOutcome) -> None:
        if outcome.verdict is Verdict.SKIP:
            outcome = _without_points(outcome)
        self._outcomes[case.id] = outcome
        self.progress(outcome)


def _with_attempts(outcome: CaseOutcome, attempts: int) -> CaseOutcome:
    return replace(outcome, attempts=attempts)


def _without_points(outcome: CaseOutcome) -> CaseOutcome:
    return replace(outcome, points=0.0, most=0.0)
