"""What a case is, and how it can end.

A case is a row of a suite's table: what is done to the program, what a right one does, why that matters, and
which mistake it shows. `run` is the stimulus: it returns for PASS, returns a `Note` for what is not a plain
PASS, and raises `ServiceFailed` for what is wrong.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any


class Verdict(enum.StrEnum):
    """How a case ended, the best first."""

    PASS = "PASS"
    INFO = "INFO"  # nothing is demanded: a measurement, or what the contract leaves open
    NON_STRICT = "NON-STRICT"  # it works here, and a stricter reader would object
    SKIP = "SKIP"  # not asked, with the reason
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Note:
    """What a case has to say beside its verdict, which is any but FAIL."""

    verdict: Verdict
    text: str


class CheckFailed(Exception):
    """A program did what it shouldn't, or not what it should.

    Fields: `expected`, `happened` (both in words, escaped), `late` (nothing came in time: on a busy machine
    it may have come later, so the case is worth another try).
    """

    def __init__(self, expected: str, happened: str, *, timed_out: bool = False) -> None:
        super().__init__(expected, happened)
        self.expected = expected
        self.happened = happened
        self.timed_out = timed_out

    def __str__(self) -> str:
        return f"expected {self.expected}; {self.happened}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of a suite.

    `id`, `stimulus`, `expectation`, `why` and `mistake` (the classic one that a FAIL points to) are texts
    for people. `asks` names what a contract and a target must allow, from `applicability.REQUIREMENTS`: where they
    don't, the case is SKIP. `after` names cases that must not have failed: without them it could tell
    nothing new. `alone`: nothing else may run meanwhile. `thorough`: only with --thorough, for it takes long
    or much.
    """

    id: str
    stimulus: str
    expectation: str
    why: str
    likely_cause: str
    run: Callable[[Any], Awaitable[Note | None]]
    requires: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    exclusive: bool = False
    thorough: bool = False
