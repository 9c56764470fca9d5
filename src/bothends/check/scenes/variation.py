"""What the variations of scenes for servers and for clients have in common: their form, and their words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic

from bothends.check.case import ContextT, Note
from bothends.check.contract import Contract
from bothends.check.same_cause import PIECES
from bothends.check.scenes.datagram_path import Disturbance
from bothends.check.scenes.spec import Scene

NO_FRAMING: Final = "the contract has no framing: data sent in two pieces may be two messages"


@dataclass(frozen=True, slots=True)
class Variation(Generic[ContextT]):
    """A way to play every scene. `suffix` is added to the scene's case id.

    `skip`: returns why it is not asked under a contract, or "". `after`: the suffixes of variations that must
    not have failed. `requires`: as in a case. `once`: a program that fails it fails it in every scene, so it
    has points in the first only. `family`: what it varies, by default its suffix; `follows`: the suffixes of
    variations of the same scene whose mistake makes this one fail, too. See `same_cause`.
    """

    suffix: str
    stimulus: str
    why: str
    likely_cause: str
    run: Callable[[ContextT, Scene], Awaitable[Note | None]]
    skip: Callable[[Contract, Scene], str]
    after: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    once: bool = False
    family: str = ""
    follows: tuple[str, ...] = ()


def pieces(
    of_text: str,
    bytewise: Callable[[ContextT, Scene], Awaitable[Note | None]],
    cut: Callable[[ContextT, Scene], Awaitable[Note | None]],
    joined: Callable[[ContextT, Scene], Awaitable[Note | None]],
    skip: Callable[[Contract, Scene], str],
    skip_joined: Callable[[Contract, Scene], str],
) -> tuple[Variation[ContextT], ...]:
    """Return the variations in which texts arrive in other pieces.

    Args:
        of_text: what is said of a text, such as " for the client".
    """
    stream = "TCP is a byte stream: the network may split a message anywhere."
    return (
        Variation(
            "bytewise",
            f"every text{of_text} sent byte by byte",
            stream,
            "treats the data of one recv() as one message",
            bytewise,
            skip,
            family=PIECES,
        ),
        Variation(
            "cut",
            f"every text{of_text} cut in the middle",
            stream,
            "treats the data of one recv() as one message, or forgets the first part of a message",
            cut,
            skip,
            family=PIECES,
        ),
        Variation(
            "joined",
            f"consecutive texts {of_text.strip() or 'of a client'} in one segment",
            "Data from two writes may arrive together (RFC 9293, 3.9.1.2: a stream has no records).",
            "discards the data after the first message of a recv()",
            joined,
            skip_joined,
        ),
    )


def not_borne(_contract: Contract, scene: Scene, disturbance: Disturbance) -> str:
    """Return why a scene is not played with a disturbance, or ""."""
    if disturbance in scene.disturbances:
        return ""
    return f'the contract does not say that it bears this (bears = ["{disturbance}"])'


def applies(disturbs_datagrams: bool, suffix: str) -> bool:
    """Whether a variation belongs to a suite: those of datagrams only to scenes with datagrams."""
    return disturbs_datagrams or suffix not in set(Disturbance)
