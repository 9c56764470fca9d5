"""The steps of a scene, in order: what a client sends and does, and what it must receive. Pure values."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from bothends.check.scenes.template import TextTemplate


class Ending(enum.Enum):
    """An end of a connection, or of one direction of it."""

    CLOSE = "closes"
    HALF_CLOSE = "half-closes"
    RESET = "reset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A line of a scene. `line`: its number from 1; `source`: its text; `client`: the client's name."""

    line: int
    source: str
    client: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.source}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SendTexts(Step):
    """The client sends texts, in one write. `eventually`: a client under test may send others before."""

    texts: tuple[TextTemplate, ...]
    eventually: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectText(Step):
    """The client must receive one of these texts.

    `within`: seconds, if not the timeout of the run; `eventually`: other texts may precede it.
    """

    choices: tuple[TextTemplate, ...]
    within: float | None = None
    eventually: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectInAnyOrder(Step):
    """The clients must receive these texts, in any order."""

    expected: tuple[ExpectText, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Optional(Step):
    """What a client may say before its next line, and the replies to it. The first step is a SendTexts."""

    steps: tuple[Step, ...]

    @property
    def first(self) -> SendTexts:
        """The text that begins it."""
        first = self.steps[0]
        assert isinstance(first, SendTexts)
        return first


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectSame(Step):
    """The client must receive what a client of the reference server receives: a text, an end, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectNothing(Step):
    """The client must receive nothing for `seconds`; with `discard`, it may receive anything."""

    seconds: float
    discard: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectEnding(Step):
    """The server must end the client's connection. `within`: seconds, if not the timeout of the run."""

    ending: Ending
    within: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect(Step):
    """The client connects; otherwise it connects at its first line.

    `port`: another port than the server's. If the client is an upstream, the program connects to it.
    """

    port: TextTemplate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndConnection(Step):
    """The client ends its connection."""

    ending: Ending


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause(Step):
    """The client waits for `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart(Step):
    """The server is stopped with SIGTERM and started again; `client` is empty. Connections have ended."""
