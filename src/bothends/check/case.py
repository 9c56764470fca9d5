"""Cases, their verdicts, and the exceptions that end one.

A case is a row of a suite's table: what is done to the program, what a correct one does, why that matters,
and the likely cause of a failure. Its `run` is the stimulus: a coroutine that returns None for PASS, returns
a `Note` for any other verdict except FAIL, and raises `CheckFailed` for FAIL.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from bothends.check.same_cause import Exchange, WrongAnswer
from bothends.endpoints import Endpoint
from bothends.errors import BothendsError, ServiceError

LINE_NOT_KEPT: Final = "does not do what this line of the scene says"
"""The likely cause of a failed scene, if its contract names none."""


class Verdict(enum.StrEnum):
    """The verdict on a case, from best to worst."""

    PASS = "PASS"
    INFO = "INFO"  # nothing is required: a measurement, or behaviour that the contract leaves open
    NON_STRICT = "NON-STRICT"  # it works here, but a stricter reading of the contract would reject it
    SKIP = "SKIP"  # not run, with the reason
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Note:
    """A remark attached to a verdict other than FAIL."""

    verdict: Verdict
    text: str


class CheckFailed(Exception):
    """The program did something wrong, or did not do what it should.

    Fields: `expected`, `happened` (descriptions, escaped), `timed_out` (nothing arrived in time: on a busy
    machine it may have arrived later, so the case is worth another attempt), `left` (the server had exited
    with status 0, without a signal of the checker), `cause` (the likely cause, escaped, if the evidence
    shows one; else that of the case's table is shown), `crash` (names what two failures with one cause have
    in common: an exception that ended the program, and its place), `answer` (of a scene: what the program did
    at which line).
    """

    def __init__(
        self,
        expected: str,
        happened: str,
        *,
        timed_out: bool = False,
        left: bool = False,
        cause: str = "",
        crash: str = "",
        answer: WrongAnswer | None = None,
    ) -> None:
        super().__init__(expected, happened)
        self.expected = expected
        self.happened = happened
        self.timed_out = timed_out
        self.left = left
        self.cause = cause
        self.crash = crash
        self.answer = answer

    def __str__(self) -> str:
        return f"expected {self.expected}; {self.happened}"

    def extended(
        self, happened: str, *, timed_out: bool = False, left: bool = False, crash: str = "", cause: str = ""
    ) -> CheckFailed:
        """Return this failure with another description of what happened, and perhaps with its cause."""
        crash, cause = crash or self.crash, cause or self.cause
        return CheckFailed(
            self.expected,
            happened,
            timed_out=timed_out,
            left=left,
            cause=cause,
            crash=crash,
            answer=self.answer,
        )


@dataclass(eq=False, repr=False)
class NotListening(BothendsError):
    """The program cannot be judged: it could not be started, does not listen, or does not connect.

    Fields: `reason`, `stderr_tail` (the end of its standard error, escaped), `exited` (it is not running),
    `port_in_use` (another socket has its port, so that this says nothing about the case), `elsewhere` (it
    listens on this one endpoint, whatever port it was given), `cause` (the likely cause, if the evidence
    shows one), `expected` and `consequence`: what it should be, and why no case can be asked.
    """

    reason: str
    stderr_tail: str
    exited: bool = False
    port_in_use: bool = False
    elsewhere: Endpoint | None = None
    cause: str = ""
    expected: str = "a server that listens"
    consequence: str = "the server does not listen"

    def __str__(self) -> str:
        return f"{self.reason}: {self.stderr_tail}" if self.stderr_tail else self.reason


class FunctionError(ServiceError):
    """A Python function of the contract failed, so nothing can be said about the program."""

    def __str__(self) -> str:
        return f"the contract's function {self.name}() {self.reason}{f'; {self.hint}' if self.hint else ''}"


class CaseContext(Protocol):
    """A running case, as the runner sees it. Stimuli get a ServerContext or a ClientContext."""

    async def diagnose(self, failure: CheckFailed) -> tuple[CheckFailed, str]:
        """Return the failure, extended by the state of the process, and the end of its standard error."""


ContextT = TypeVar("ContextT", bound=CaseContext)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(Generic[ContextT]):
    """One row of a suite.

    `id`, `stimulus`, `expectation`, `why` and `likely_cause` (of a FAIL) are texts for people. `requires`
    names properties of the contract and the program, from `requirements.REQUIREMENTS`; without them the case
    is SKIP. `after` names cases that must not have failed, because this one would fail for the same reason.
    `exclusive`: no other case may run at the same time. `thorough`: runs only with --thorough, because it
    takes long or needs many resources. `graded`: it has points; False if nothing is required. `skip`: why
    the contract leaves nothing to ask here, or "".

    For `same_cause`: `family` (of a variation of a scene: what it varies), `follows` (the ids of cases whose
    mistake makes this one fail, too), `exchanges` (of a scene: the lines that demand something).
    """

    id: str
    stimulus: str
    expectation: str
    why: str
    likely_cause: str
    run: Callable[[ContextT], Awaitable[Note | None]]
    requires: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    exclusive: bool = False
    thorough: bool = False
    graded: bool = True
    skip: str = ""
    family: str = ""
    follows: tuple[str, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
