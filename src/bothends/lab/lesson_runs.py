"""Run the programs of a lesson, and tell whether it is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from bothends.lab.lesson_checks import CheckResult, RunRecord, evaluate, judgements, start_of
from bothends.lab.lessons import Lesson
from bothends.lab.messages import Job, Program
from bothends.lab.runs import RunPool

CarryOut = Callable[[Job, Callable[[bytes], Awaitable[None]]], Awaitable[bool]]
"""Carries out a job, as `RunProcess.carry_out` does."""

_decode: Final = msgspec.json.Decoder(dict).decode


async def check_run(lesson: Lesson, record: RunRecord, carry_out: CarryOut) -> list[CheckResult]:
    """Return the results of a lesson's checks after a run, of which `record` has the replies.

    What a contract is to judge is judged now.
    """
    for check, job in judgements(lesson, record):

        async def on_reply(line: bytes, check=check) -> None:  # type: ignore[no-untyped-def]
            reply = _decode(line)
            if reply["type"] == "judged" and reply["result"] is not None:
                record.add_judgement(check, reply["result"]["outcomes"])

        await carry_out(job, on_reply)
    return evaluate(lesson, record)


async def try_lesson(lesson: Lesson, programs: list[Program], pool: RunPool) -> list[CheckResult]:
    """Run programs as the page does, and return the results of the lesson's checks. Raises Unavailable."""
    record = RunRecord(programs)

    async def carry_out(job: Job, on_reply: Callable[[bytes], Awaitable[None]]) -> bool:
        run = await pool.take()
        try:
            return await run.carry_out(job, on_reply)
        finally:
            await run.close()

    async def on_reply(line: bytes) -> None:
        record.add(_decode(line))

    await carry_out(start_of(lesson, programs), on_reply)
    return await check_run(lesson, record, carry_out)


async def judge_lesson(lesson: Lesson, pool: RunPool) -> list[str]:
    """Return what is wrong with a lesson: it passes as it begins, or its solution does not.

    Raises:
        Unavailable: there is no sandbox.
    """
    faults = []
    if all(each.passed for each in await try_lesson(lesson, lesson.programs, pool)):
        faults.append("it passes all checks as it begins")
    failed = [each for each in await try_lesson(lesson, lesson.solution, pool) if not each.passed]
    return [*faults, *(f"the solution fails: {each.says}: {each.happened}" for each in failed)]
