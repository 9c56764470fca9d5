"""From figures to a verdict: held, degraded or failed, with the reason and what it means. Pure.

Only what was seen is claimed: a latency counts if it is above ten times the quiet one and above what a loaded
machine does by itself, and a lost request if more were lost than in the quiet phase.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bothends.attack.attacks.base import Attack
from bothends.attack.results import Hold, HonestFigures, ServerFigures

MAX_SLOWDOWN: Final = 10.0  # times the quiet p99
NOISE: Final = 0.05  # seconds: a latency below is what other programs on the machine cause, too
FAILED_SHARE: Final = 0.05  # of the honest requests without an answer
FAILED_TIME: Final = 0.5  # of the time that an honest client waited for answers that did not come
SPARE_DESCRIPTORS: Final = 8  # descriptors, threads or processes that a server may keep for later
_SPARE_MEMORY: Final = 48 << 20  # bytes that an allocator may keep
MAX_STARVED_PROCESSOR: Final = 0.7  # of one processor: a loop that repeats accept() uses all of it
MAX_IDLE_PROCESSOR: Final = 0.2  # of one processor: a busy loop uses all of it


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of one attack.

    `wrong` and `unserved` describe the first such answer; `ended`: how the server ended by itself, "" if it
    runs; `recovered`: whether honest clients were served again after the attack; `sigterm`: what went wrong
    after SIGTERM, or ""; `load`: how much slower the machine is than an idle one.
    """

    quiet: HonestFigures
    attacked: HonestFigures
    recovered: bool
    ended: str = ""
    wrong: str = ""
    unserved: str = ""
    server: ServerFigures | None = None
    sigterm: str = ""
    load: float = 1.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, with its reason, what it means, and further reasons."""

    hold: Hold
    reason: str
    meaning: str = ""
    others: tuple[str, ...] = ()


def judge(seen: Observation, attack: Attack) -> Judgement:
    """Judge what was seen of an attack. The worst reason comes first."""
    reasons = sorted(
        [*_answers(seen, attack), *_latency(seen, attack), *_resources(seen, attack)],
        key=lambda each: each[0].value,
    )
    reasons.sort(key=lambda each: each[0] is not Hold.FAILED)
    if not reasons:
        figures = seen.attacked
        return Judgement(Hold.HELD, f"{figures.right:,} of {figures.total:,} honest requests answered")
    (hold, reason, meaning), *others = reasons
    return Judgement(hold, reason, meaning, tuple(each[1] for each in others))


_Reason = tuple[Hold, str, str]


def _answers(seen: Observation, attack: Attack) -> list[_Reason]:
    found: list[_Reason] = []
    figures = seen.attacked
    if seen.ended:
        found.append((
            Hold.FAILED, f"the server ended: {seen.ended}",
            "Any client can end the service for all others.",
        ))  # fmt: skip
    if figures.wrong:
        found.append((
            Hold.FAILED, f"{_count(figures.wrong, 'wrong answer')}; the first: {seen.wrong}",
            "Users get an answer that is not right, or that was another user's.",
        ))  # fmt: skip
    if not seen.recovered and not seen.ended:
        found.append((
            Hold.FAILED, "honest clients are not served again after the attack",
            "The service is down until it is restarted.",
        ))  # fmt: skip
    share = figures.unserved_share
    if share > seen.quiet.unserved_share and not seen.ended:
        starved = attack.starves == "descriptors"  # without a descriptor no server can accept
        much = share >= FAILED_SHARE or figures.unserved_time >= FAILED_TIME
        hold = Hold.FAILED if much and not starved else Hold.DEGRADED
        text = f"{figures.unserved:,} of {figures.total:,} honest requests got no answer: {_kinds(figures)}"
        if seen.unserved:
            text += f"; the first: {seen.unserved}"
        meaning = "Users are not served while the attack lasts."
        if starved and seen.recovered:
            return found  # it waits until there are descriptors again, which is all it can do
        found.append((hold, text, meaning))
    return found


def _latency(seen: Observation, attack: Attack) -> list[_Reason]:
    quiet, attacked = seen.quiet, seen.attacked
    limit = max(NOISE * seen.load, MAX_SLOWDOWN * quiet.p99, 2 * attacked.late)
    if attacked.p99 <= limit or attack.starves == "descriptors":  # then it has to wait for a descriptor
        return []
    reason = f"p99 of honest requests is {_milliseconds(attacked.p99)}, {_milliseconds(quiet.p99)} when quiet"
    times = attacked.p99 / quiet.p99 if quiet.p99 else 0.0
    meaning = f"One request in a hundred takes {times:,.0f} times as long while the attack lasts."
    return [(Hold.DEGRADED, reason, meaning)]


def _resources(seen: Observation, attack: Attack) -> list[_Reason]:
    found: list[_Reason] = []
    if seen.server is not None and not seen.ended:
        before, after = seen.server.before, seen.server.after
        grown = seen.server.peak_memory - before.memory
        if grown > attack.max_growth:
            found.append((
                Hold.DEGRADED, f"its memory grew by {grown / 1e6:,.0f} MB",
                "A larger attack of this kind takes the memory of the machine.",
            ))  # fmt: skip
        elif after.memory - before.memory > max(_SPARE_MEMORY, before.memory):
            found.append((
                Hold.DEGRADED, f"it keeps {(after.memory - before.memory) / 1e6:,.0f} MB after the attack",
                "Repeated, the attack may take the memory of the machine.",
            ))  # fmt: skip
        for name in ("descriptors", "threads", "processes", "zombies"):
            kept = getattr(after, name) - getattr(before, name)
            if kept > SPARE_DESCRIPTORS:
                found.append((
                    Hold.DEGRADED, f"{kept:,} more {name} than before, after all clients have gone",
                    "Repeated, the attack uses up what the system allows it.",
                ))  # fmt: skip
        if attack.starves == "descriptors" and seen.server.processor > MAX_STARVED_PROCESSOR:
            share = f"{seen.server.processor:.0%}"
            found.append((
                Hold.DEGRADED, f"it uses {share} of a processor while it has no descriptor to accept with",
                "The machine is busy with nothing as long as the attack lasts.",
            ))  # fmt: skip
        if seen.server.idle_processor > MAX_IDLE_PROCESSOR:
            share = f"{seen.server.idle_processor:.0%}"
            found.append((
                Hold.DEGRADED, f"it uses {share} of a processor after all clients have gone",
                "A short attack costs a processor until the server is restarted.",
            ))  # fmt: skip
    if seen.sigterm:
        found.append((Hold.DEGRADED, seen.sigterm, "It has to be killed, and what it holds is lost."))
    return found


def _kinds(figures: HonestFigures) -> str:
    named = (("refused", figures.refused), ("lost", figures.lost), ("timed out", figures.unanswered))
    return ", ".join(f"{number:,} {name}" for name, number in named if number)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms" if seconds < 0.1 else f"{seconds * 1e3:,.0f} ms"
