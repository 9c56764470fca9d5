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

from bothends.check.case import Case, Failed, Remark, Verdict
from bothends.check.contract import answers
from bothends.check.errors import NotReady
from bothends.check.oracle import Answers
from bothends.check.requirements import reason_to_skip
from bothends.check.results import Outcome, Result
from bothends.check.subjects.interfaces import Subject
from bothends.check.transcript import Transcript
from bothends.errors import BothendsError, ServiceError
from bothends.escaping import escape_text

PATIENCE: Final = 3.0  # seconds: only what is wrong takes them
JOBS: Final = 6  # most cases wait most of the time, so more than there are processors
_WHOLE: Final = 60.0  # seconds for a case on an idle machine; the longest right one takes about five
_TRIES: Final = 3
_PICTURE: Final = 1.0  # seconds of patience for a run that is only drawn

Progress = Callable[[Outcome], None]


def slowness() -> float:
    """How much slower this machine is now than when it is idle: 1 to 6."""
    return round(min(6.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))), 1)


@dataclass
class Run:
    """One program under one suite."""

    subject: Subject
    cases: Sequence[Case]
    suite: str = ""
    only: Sequence[str] = ()
    thorough: bool = False
    trace: Path | None = None
    jobs: int = JOBS
    patience: float = PATIENCE
    progress: Progress = lambda _outcome: None
    _found: dict[str, Outcome] = field(default_factory=dict)

    async def run(self) -> Result:
        """Judge it.

        Raises:
            BothendsError: the caller's mistake; what is wrong with the program is in the result.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        contract = self.subject.contract
        known = answers(contract)
        self.subject.scale = slowness()
        notes = [self.subject.sandbox.note] if self.subject.sandbox else []
        try:
            took = await self.subject.prepare()
            self.subject.scale = round(min(8.0, max(self.subject.scale, took)), 1)
        except NotReady as error:
            self._nothing_runs(error)
        else:
            if self.subject.started and not self.subject.parallel:
                notes.append(f"it insists on {self.subject.fixed}, so its cases run one after another")
            await self._run_all(known)
            await self._draw_failures(known)
        finally:
            await self.subject.finish()
        outcomes = tuple(self._found[case.id] for case in self.cases if case.id in self._found)
        return Result(
            escape_text(self.subject.title),
            contract.name,
            self.suite,
            outcomes,
            round(loop.time() - began, 2),
            tuple(notes),
        )

    def _nothing_runs(self, error: NotReady) -> None:
        first, *others = self.cases
        self._end(first, Outcome(
            first.id, Verdict.FAIL, expected="a server that listens", happened=error.reason,
            mistake="it doesn't start, or listens elsewhere", complaint=error.complaint,
        ))  # fmt: skip
        for case in others:
            if case in self.asked():
                self._end(case, Outcome(case.id, Verdict.SKIP, detail="there is no server to ask"))

    async def _run_all(self, known: Answers) -> None:
        gate = self.cases[0]
        asked = self.asked()
        wanted = []
        for case in self.cases:
            reason = reason_to_skip(case, self.subject.contract, known, self.subject, self.thorough)
            if case not in asked and case is not gate:
                continue
            if reason:
                self._end(case, Outcome(case.id, Verdict.SKIP, detail=reason))
            else:
                wanted.append(case)
        if gate in wanted:
            await self._one(gate, known)
            wanted.remove(gate)
            if self._found[gate.id].verdict is Verdict.FAIL:
                for case in wanted:
                    self._end(
                        case,
                        Outcome(
                            case.id, Verdict.SKIP, detail=f"{gate.id} failed: nothing else could be told"
                        ),
                    )
                return
        jobs = asyncio.Semaphore(self.jobs if self.subject.parallel else 1)
        ended = {case.id: asyncio.Event() for case in self.cases}
        for case_id in self._found:
            ended[case_id].set()

        async def one(case: Case) -> None:
            for before in case.after:
                if before in {each.id for each in wanted}:
                    await ended[before].wait()
            async with jobs:
                await self._one(case, known)
            ended[case.id].set()

        together = [case for case in wanted if not case.alone]
        async with asyncio.TaskGroup() as tasks:
            for case in together:
                tasks.create_task(one(case))
        for case in wanted:
            if case.alone:
                await self._one(case, known)
        for case in together:
            if (outcome := self._found[case.id]).verdict is Verdict.FAIL and outcome.attempts == 0:
                await self._again(case, known)

    def asked(self) -> list[Case]:
        """What is asked for, and what comes before that."""
        if not self.only:
            return list(self.cases)
        before = {name for case in self.cases if case.id in self.only for name in case.after}
        return [case for case in self.cases if case.id in {*self.only, *before}]

    async def _one(self, case: Case, known: Answers) -> None:
        for before in case.after:
            if before in self._found and self._found[before].verdict is Verdict.FAIL:
                self._end(case, Outcome(case.id, Verdict.SKIP, detail=f"{before} failed"))
                return
        outcome, late = await self._try(case, known, self.patience * self.subject.scale, 1)
        if not late:
            self._end(case, outcome)
        elif case.alone or case is self.cases[0]:
            await self._again(case, known)
        else:
            self._found[case.id] = _with_attempts(outcome, 0)  # until all others have ended

    async def _again(self, case: Case, known: Answers) -> None:
        """Try a case alone and with more patience, until it has gone one way twice."""
        failures = 1
        outcome = None
        for attempt in range(2, _TRIES + 1):
            outcome, _ = await self._try(case, known, self.patience * self.subject.scale * attempt, attempt)
            failures += outcome.verdict is Verdict.FAIL
            if failures == 2 or attempt - failures == 2:
                break
        assert outcome is not None
        self._end(case, outcome)

    async def _try(self, case: Case, known: Answers, patience: float, attempt: int) -> tuple[Outcome, bool]:
        """How a case ends this time, and whether it failed only for being late."""
        loop = asyncio.get_running_loop()
        transcript = Transcript()
        began = loop.time()
        remark: Remark | None = None
        failed: Failed | None = None
        complaint = ""
        # Who is told to be more patient, as over a bad path, is so with the whole case too.
        whole = round(_WHOLE * self.subject.scale * max(1.0, self.patience / PATIENCE))
        try:
            async with self.subject.attempt(known, transcript, patience) as one:
                try:
                    async with asyncio.timeout(whole):
                        remark = await case.run(one)
                except Failed as error:
                    failed = error
                except TimeoutError:
                    failed = Failed(case.expectation, f"it isn't done after {whole} s", late=True)
                except ServiceError as error:  # no more does what the teacher wrote
                    remark = Remark(Verdict.SKIP, f"the contract doesn't say what is right: {error}")
                except OSError as error:  # a call of ours that says nothing of the program
                    remark = Remark(Verdict.SKIP, f"it couldn't be tried: {error.strerror or error}")
                if failed is not None:
                    failed, complaint = await one.evidence(failed)
        except NotReady as error:
            failed, complaint = Failed("a server that listens", error.reason), error.complaint
        except BothendsError as error:
            failed = Failed("a server that listens", str(error))
        seconds = round(loop.time() - began, 3)
        most = self.subject.contract.weight(case.id)
        if failed is not None:
            relaxed = case.id in self.subject.contract.relax
            outcome = Outcome(
                case.id, Verdict.NON_STRICT if relaxed else Verdict.FAIL, seconds, attempt,
                detail="the contract lets it pass" if relaxed else "",
                expected=failed.expected, happened=failed.happened, mistake=case.mistake,
                complaint=complaint, transcript=tuple(transcript.entries()),
                points=most if relaxed else 0.0, most=most,
            )  # fmt: skip
            return outcome, failed.late
        if remark is not None:
            counts = remark.verdict in (Verdict.PASS, Verdict.NON_STRICT)
            strict = remark.verdict is Verdict.NON_STRICT
            entries = tuple(transcript.entries()) if strict else ()
            return Outcome(
                case.id, remark.verdict, seconds, attempt, detail=remark.text, transcript=entries,
                points=most if counts else 0.0, most=most if counts else 0.0,
            ), False  # fmt: skip
        return Outcome(case.id, Verdict.PASS, seconds, attempt, points=most, most=most), False

    async def _draw_failures(self, known: Answers) -> None:
        """Try what failed once more, each with its calls and packets drawn on a page."""
        if self.trace is None:
            return
        by_id = {case.id: case for case in self.cases}
        for name, outcome in list(self._found.items()):
            if outcome.verdict is Verdict.FAIL:
                page = (self.trace / f"{name}.html").absolute()
                self.subject.trace = page
                await self._try(by_id[name], known, _PICTURE * self.subject.scale, outcome.attempts)
                if page.exists():
                    self._found[name] = replace(outcome, evidence=str(page))
        self.subject.trace = None

    def _end(self, case: Case, outcome: Outcome) -> None:
        if outcome.verdict is Verdict.SKIP:
            outcome = _without_marks(outcome)
        self._found[case.id] = outcome
        self.progress(outcome)


def _with_attempts(outcome: Outcome, attempts: int) -> Outcome:
    return replace(outcome, attempts=attempts)


def _without_marks(outcome: Outcome) -> Outcome:
    return replace(outcome, points=0.0, most=0.0)
