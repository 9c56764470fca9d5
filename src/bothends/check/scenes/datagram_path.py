"""Ways in which the network may treat the datagrams of a scene, if its protocol must bear them. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import replace

from bothends.check.scenes.steps import ExpectNothing, ExpectText, SendTexts, Step

_REPEATED_REPLIES = 0.2  # seconds of silence until the replies to datagrams that were sent again have come


class Disturbance(enum.StrEnum):
    """What happens to datagrams on the way. The values are those of a scene's key `bears`."""

    NONE = "none"
    LOSS = "loss"
    """The first reply to each datagram is lost, so the client sends its datagram again."""
    DUPLICATES = "duplicates"
    """Each datagram arrives twice."""
    REORDERING = "reordering"
    """Datagrams sent in a row arrive in reverse; the client sends them again in order."""
    DELAY = "delay"
    """A copy of each datagram arrives after the reply to the one that follows it."""


def reorder_sends(steps: tuple[Step, ...], is_datagram: Callable[[str], bool]) -> tuple[Step, ...]:
    """Return the steps with a client's datagrams in a row in reverse, and then sent again in order.

    Of the texts that the client receives next, only the last is certain then: a program may reply to each
    datagram that arrives too early, or to none of them.
    """
    changed: list[Step] = []
    reordered: str | None = None  # the client whose datagrams were reordered, until its next other step
    at = 0
    while at < len(steps):
        step = steps[at]
        run = _run_of(steps, at, SendTexts)
        if len(run) > 1 and is_datagram(step.client):
            texts = tuple(each.texts[0] for each in run if isinstance(each, SendTexts))
            changed.append(
                SendTexts(
                    line=step.line,
                    source=f"{step.source} ... {run[-1].source}, reversed, then in order",
                    client=step.client,
                    texts=(*reversed(texts), *texts),
                )
            )
            reordered = step.client
        elif reordered == step.client and isinstance(step, ExpectText):
            run = _run_of(steps, at, ExpectText)
            last = run[-1]
            assert isinstance(last, ExpectText)
            changed.append(replace(last, eventually=True))
            changed.append(
                ExpectNothing(
                    line=last.line,
                    source=f"{last.source}, again",
                    client=last.client,
                    seconds=_REPEATED_REPLIES,
                    discard=True,
                )
            )
            reordered = None
        else:
            run = (step,)
            changed.append(step)
        at += len(run)
    return tuple(changed)


def _run_of(steps: tuple[Step, ...], start: int, kind: type[Step]) -> tuple[Step, ...]:
    """Return the steps of one kind and client that follow each other from `start` on: at least one."""
    end = start + 1
    while end < len(steps) and isinstance(steps[start], kind) and isinstance(steps[end], kind):
        if steps[end].client != steps[start].client:
            break
        end += 1
    return steps[start:end]
