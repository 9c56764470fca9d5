"""The `[[scene]]` tables of a contract, and the scenes that are made of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from bothends.check.scenes.datagram_path import Disturbance
from bothends.check.scenes.steps import (
    ExpectInAnyOrder,
    ExpectText,
    Optional,
    Restart,
    SendTexts,
    Step,
)
from bothends.check.scenes.talk import TalkError, parse_talk
from bothends.check.scenes.template import NO_SOURCES, TextSources
from bothends.errors import ConfigurationError

CASE_PREFIX: Final = "scene-"


class SceneSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A dialogue of one or more clients with the server. The fields are the keys of the table."""

    name: str
    """A few words, from which the id of its case is made."""

    talk: str
    """The lines of the dialogue."""

    why: str = ""
    """Why it matters, for `bothends check explain`."""

    mistake: str = ""
    """The likely mistake of a program that fails."""

    clients: dict[str, Literal["tcp", "udp"]] = {}
    """The transport of each client by name, if not the contract's."""

    upstreams: tuple[str, ...] = ()
    """The names in the talk that are servers which the checker runs, to which the program connects."""

    repeat: Literal["no", "after", "beside"] = "no"
    """Whether it can be played again on the same server: after an interrupted one, or beside another, too."""

    role: Literal["both", "server", "client"] = "both"
    """The programs that it judges: servers, clients, or both."""

    input: str | None = None
    """The lines that a client under test reads, if not the texts that it sends."""

    output: str | None = None
    """The lines that a client under test prints, in this order, if not the texts that it receives."""

    bears: tuple[Literal["loss", "duplicates", "reordering", "delay"], ...] = ()
    """What may happen to its datagrams without another outcome. Each is a case."""

    examples: dict[str, str] = {}
    """The values that the checker sends for `{name=...}` when it plays the server."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A parsed scene. `all_steps`: with the optional ones; `datagram_clients`: those that send datagrams."""

    spec: SceneSpec
    all_steps: tuple[Step, ...]
    datagram_clients: frozenset[str] = frozenset()

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that are always played: a client need not say what is optional."""
        return tuple(step for step in self.all_steps if not isinstance(step, Optional))

    @property
    def case_id(self) -> str:
        """The id of its case."""
        return CASE_PREFIX + slug(self.spec.name)

    @property
    def clients(self) -> tuple[str, ...]:
        """The names of its clients, in the order of their first lines."""
        return tuple(dict.fromkeys(step.client for step in _all_steps(self.steps) if step.client))

    @property
    def restarts(self) -> bool:
        """Whether the server is started again in it."""
        return any(isinstance(step, Restart) for step in self.steps)

    @property
    def disturbances(self) -> tuple[Disturbance, ...]:
        """What its datagrams must bear."""
        return tuple(map(Disturbance, self.spec.bears))

    def is_datagram(self, client: str) -> bool:
        """Whether a client's messages are datagrams."""
        return client.partition("/")[0] in self.datagram_clients

    def texts(self) -> Iterator[SendTexts | ExpectText]:
        """Return the steps that send or receive texts."""
        return (step for step in _all_steps(self.all_steps) if isinstance(step, SendTexts | ExpectText))


def _all_steps(steps: tuple[Step, ...]) -> Iterator[Step]:
    for step in steps:
        if isinstance(step, ExpectInAnyOrder):
            yield from step.expected
        elif isinstance(step, Optional):
            yield from step.steps
        else:
            yield step


def slug(name: str) -> str:
    """Return a name in lower case, with a hyphen for each run of other characters than letters and digits."""
    return "-".join(re.findall(r"[^\W_]+", name.lower()))


def parse_scene(
    spec: SceneSpec, transport: str, file: str, sources: TextSources = NO_SOURCES, first_line: int = 0
) -> Scene:
    """Parse a scene of a contract.

    Args:
        transport: the contract's transport.
        file: the file's name, for errors.
        sources: the files and functions that texts may name.
        first_line: the number of the talk's first line in the file, for errors, or 0.

    Raises:
        ConfigurationError: a line of the talk, the name or a client is invalid.
    """
    table = f"scene {spec.name!r}"
    if not slug(spec.name):
        raise ConfigurationError(file, table, "name", "it has no letter and no digit", "write a few words")
    datagrams = {name for name, kind in spec.clients.items() if kind == "udp"}

    def is_datagram(client: str) -> bool:
        name = client.partition("/")[0]
        if name in spec.upstreams:
            return False
        return name in datagrams if name in spec.clients else transport in ("udp", "unix+dgram")

    try:
        of_client = spec.role == "client"
        steps = parse_talk(spec.talk, is_datagram, sources, of_client=of_client, upstreams=spec.upstreams)
    except TalkError as error:
        where = f"{file}:{first_line + error.line - 1}" if first_line else file
        reason = f"line {error.line}: {error.reason}"
        raise ConfigurationError(where, table, "", reason, error.hint) from error
    names = {name.partition("/")[0] for name in Scene(spec, steps).clients}
    if spec.upstreams and transport.startswith("unix"):
        raise ConfigurationError(file, table, "upstreams", "a program on a UNIX socket has none")
    for key, name in (
        *(("clients", name) for name in spec.clients),
        *(("upstreams", name) for name in spec.upstreams),
    ):
        if name not in names:
            raise ConfigurationError(
                file,
                table,
                key,
                f"{name!r} has no line in the talk",
                f"there is {', '.join(sorted(names))}",
            )
        if transport.startswith("unix"):
            raise ConfigurationError(
                file, table, "clients", "a server on a UNIX socket has no other transport"
            )
    scene = Scene(spec, steps, frozenset(name for name in names if is_datagram(name)))
    if spec.bears and not scene.datagram_clients:
        reason = "none of its clients uses datagrams, and TCP bears all this itself"
        raise ConfigurationError(file, table, "bears", reason)
    return scene
