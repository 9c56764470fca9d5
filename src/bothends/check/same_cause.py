"""Find failures of scenes that have one cause, by what was asked before a line and what came instead. Pure.

Joining must not hide another mistake, so it needs evidence:

1. If no line of any scene was right, and the failures are alike, the program has no protocol to judge: it
   sends nothing at all, or always the same.
2. If a request never got its right reply in a comparable state, and always the same wrong one, that request
   is the cause. A scene in which it was right, with the same requests before it and as many clients, shows
   that another failure of this request is due to its arguments; such a failure is not joined.
3. The scene that asks for the least is the failure that counts: the fewest clients and interruptions, and
   then the first in the contract.
4. Variations of scenes that pass show how a program treats pieces, other clients or lost datagrams. Those of
   one family that fail in the same way have one cause, whatever the scene.

A failure that is joined keeps its points lost, so that no join changes marks.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

BINARY: Final = "#"
"""Begins the kind of a request that has no word."""

PIECES: Final = "pieces"
"""The family of variations in which messages arrive in pieces: one mistake shows in several ways."""


class Due(enum.Enum):
    """What a line of a scene demands of the program."""

    TEXT = "a text"
    REQUEST = "a request of a client"
    SILENCE = "nothing"
    ENDING = "an end of the connection"


class Instead(enum.Enum):
    """What a program did instead."""

    NOTHING = "nothing"
    TEXT = "another text"
    ENDED = "an end of the connection"
    OPEN = "no end of the connection"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A line that demands something of the program, and what had been asked before.

    `line`: its number; `due`; `request`: the kind of the request that it follows, such as "GET", or "" if
    there was none; `number`: of the lines since that request, from 0; `before`: the kinds of the requests
    before it; `interruptions`: ends of connections and restarts before; `clients`: how many take part;
    `texts`: the literal texts that are right, with "*" as in `WrongAnswer`.
    """

    line: int
    due: Due
    request: str
    number: int = 0
    before: frozenset[str] = frozenset()
    interruptions: int = 0
    clients: int = 1
    texts: frozenset[bytes] = frozenset()

    def asks_as(self, other: Exchange) -> bool:
        """Whether the same is due after the same kind of request."""
        return (self.due, self.request, self.number) == (other.due, other.request, other.number)

    def is_no_harder(self, other: Exchange) -> bool:
        """Whether it has no more clients and interruptions than another one."""
        return self.clients <= other.clients and self.interruptions <= other.interruptions

    def shows(self, failed: Exchange, answer: WrongAnswer) -> bool:
        """Whether this line, which was right, shows that the request of a failed one works in its state.

        `answer`: what the program did at the failed line.
        """
        if answer.text.rstrip(b"\r\n") in self.texts:
            return False
        return self.asks_as(failed) and failed.is_no_harder(self) and failed.before <= self.before

    def explains(self, other: Exchange) -> bool:
        """Whether the failure of another line follows from the failure of this one."""
        comparable = self.before <= other.before or other.before <= self.before
        return self.asks_as(other) and comparable and self.is_no_harder(other)


@dataclass(frozen=True, slots=True)
class WrongAnswer:
    """What a program did at a line.

    `text`: what it sent, with "*" for words that it got from its peer; `crash`: the exception that ended it.
    """

    line: int
    instead: Instead
    text: bytes = b""
    crash: str = ""

    def is_like(self, other: WrongAnswer) -> bool:
        """Whether the program did the same at another line."""
        return (self.instead, self.text, self.crash) == (other.instead, other.text, other.crash)


class CauseCase(Protocol):
    """What a case says about the causes of its failure: the fields of `Case` that are used here."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def family(self) -> str:
        """Of a variation: what it varies."""

    @property
    def follows(self) -> tuple[str, ...]:
        """The ids of cases whose mistake makes this one fail, too."""

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """Of a scene: the lines that demand something of the program."""


@dataclass(frozen=True, slots=True)
class SameCause:
    """Failed cases with one cause: the one that counts, and the others.

    `exchange`: the line that fails, and `answer`: what is done instead; `never_right`: no line was right in
    any scene.
    """

    case: str
    others: tuple[str, ...]
    exchange: Exchange | None = None
    answer: WrongAnswer | None = None
    never_right: bool = False

    def describe(self) -> str:
        """Return what goes wrong in all of them, as the beginning of "... here, too"."""
        if self.exchange is None or self.answer is None:
            return "the mistake is the same"
        due, instead, name = self.exchange.due, self.answer.instead, self.exchange.request
        name = "" if name.startswith(BINARY) else name
        if due is Due.REQUEST:
            name = name or "the text"
            if instead is Instead.TEXT:
                return f"the client sends another text than {name}"
            return f"the client does not send {name}"
        after = f" after {name}" if name else ""
        if due is Due.ENDING and instead is Instead.OPEN:
            return f"the connection stays open{after}"
        if instead is Instead.ENDED:
            return f"the connection ends{after}"
        if due is not Due.TEXT:
            return f"a text is sent{after} that is not due"
        to = f" to {name}" if name else ""
        return f"there is no reply{to}" if instead is Instead.NOTHING else f"the reply{to} is wrong"


def join_scenes(
    cases: Sequence[CauseCase], passed: frozenset[str], wrong: Mapping[str, WrongAnswer]
) -> list[SameCause]:
    """Return the failures of scenes that have one cause.

    Args:
        cases: the scenes, in the order of the suite.
        passed: the ids of those that passed.
        wrong: the answers of those that failed, by their ids.
    """
    failed = [case for case in cases if case.id in wrong]
    right = [each for case in cases if case.id in passed for each in case.exchanges]
    right += [each for case in failed for each in case.exchanges if each.line < wrong[case.id].line]
    if not any(each.due in (Due.TEXT, Due.REQUEST) for each in right):
        return _join_never_right(failed, wrong)
    causes: list[tuple[CauseCase, Exchange, list[str]]] = []
    due = [(case, found) for case in failed if (found := _exchange(case, wrong[case.id])) is not None]
    due.sort(key=lambda each: (each[1].clients, each[1].interruptions))
    for case, exchange in due:
        if any(each.shows(exchange, wrong[case.id]) for each in right):
            continue
        for first, earlier, others in causes:
            if earlier.explains(exchange) and wrong[first.id].is_like(wrong[case.id]):
                others.append(case.id)
                break
        else:
            causes.append((case, exchange, []))
    return [
        SameCause(case.id, tuple(others), exchange, wrong[case.id])
        for case, exchange, others in causes
        if others
    ]


def _join_never_right(failed: Sequence[CauseCase], wrong: Mapping[str, WrongAnswer]) -> list[SameCause]:
    groups: dict[tuple[bytes | None, str], list[CauseCase]] = {}
    for case in failed:
        answer = wrong[case.id]
        if answer.instead is not Instead.OPEN:
            text = answer.text if answer.instead is Instead.TEXT else None
            groups.setdefault((text, answer.crash), []).append(case)
    return [
        SameCause(
            first.id, tuple(each.id for each in others), _exchange(first, wrong[first.id]), wrong[first.id],
            never_right=True,
        )
        for first, *others in groups.values()
        if others
    ]  # fmt: skip


def _exchange(case: CauseCase, answer: WrongAnswer) -> Exchange | None:
    return next((each for each in case.exchanges if each.line == answer.line), None)


def join_variations(cases: Sequence[CauseCase], wrong: Mapping[str, WrongAnswer | None]) -> list[SameCause]:
    """Return the failures of variations that have one cause.

    Args:
        cases: all cases, in the order of the suite.
        wrong: the answers of those that failed by their ids, None where there is none.
    """
    first: dict[tuple[str, Instead | None], str] = {}
    others: dict[str, list[str]] = {}
    counts: dict[str, str] = {}  # a failed case -> the one that counts
    for case in cases:
        if case.id not in wrong or not case.family:
            continue
        answer = wrong[case.id]
        instead = answer.instead if answer is not None and case.family != PIECES else None
        earlier = next((counts[each] for each in case.follows if each in counts), "")
        counted = earlier or first.setdefault((case.family, instead), case.id)
        counts[case.id] = counted
        if counted != case.id:
            others.setdefault(counted, []).append(case.id)
    return [SameCause(case, tuple(found)) for case, found in others.items()]
