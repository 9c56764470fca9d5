"""Which starters there are, and how one is made from its file.

The files lie beside this one: `LANGUAGE/ROLE_KIND_STYLE.EXTENSION.in`; a kind is "stream" or "datagram". A
line that begins with `@word|` belongs to the programs of that transport, service or engine only;
`{usage}` is filled in. All else is the program, so that it can be read as one.

Rank 4: imports `errors` only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bothends import suggest
from bothends.errors import UnknownName, UnsupportedCombination

LANGUAGES: Final[dict[str, str]] = {"python": "py", "c": "c", "java": "java"}
ROLES: Final = ("server", "client")
TRANSPORTS: Final = ("tcp", "udp", "unix")
SERVICES: Final = ("upper", "echo")
STYLES: Final = ("robust", "minimal")
ENGINES: Final[dict[str, tuple[str, ...]]] = {
    "python": ("threads", "select"),
    "c": ("fork", "poll"),
    "java": ("threads",),
}
"""How a robust server on a stream waits, by language, the default first."""

_FOLDER: Final = Path(__file__).parent
_CONDITIONAL_LINE: Final = re.compile(r"@(\w+)\|(.*)")


@dataclass(frozen=True, slots=True)
class Starter:
    """One program: its `text`, the `file` to write it to, how to `build` and to `run` it.

    `build` is empty where there is nothing to do; in `run`, `{port}`, `{host}` and `{path}` are placeholders.
    """

    file: str
    text: str
    build: tuple[str, ...]
    run: tuple[str, ...]


def make_starter(
    role: str,
    language: str,
    transport: str,
    *,
    service: str = "upper",
    style: str = "robust",
    engine: str | None = None,
) -> Starter:
    """The starter that is asked for.

    Raises:
        UnknownName: no such language, transport, service, style or engine.
        CannotCarry: the engine is for robust servers on streams.
    """
    for kind, name, known in (
        ("role", role, ROLES),
        ("language", language, tuple(LANGUAGES)),
        ("transport", transport, TRANSPORTS),
        ("service for starters", service, SERVICES),
        ("style", style, STYLES),
    ):
        _check_known(kind, name, known)
    kind = "datagram" if transport == "udp" else "stream"
    part = ""
    if engine is not None:
        _check_known(f"engine for {language}", engine, ENGINES[language])
        if (role, kind, style) != ("server", "stream", "robust"):
            raise UnsupportedCombination(
                f"engine {engine}", f"a {style} {role} on {transport}", "it is for robust servers on streams"
            )
        part = f"_{engine}" if engine != ENGINES[language][0] else ""
    extension = LANGUAGES[language]
    name = "Server" if role == "server" else "Client"
    file = f"{name}.{extension}" if language == "java" else f"{role}.{extension}"
    build, start = _commands(language, file, name)
    run = (*start, *_arguments(role, transport))
    place = _FOLDER / language / f"{role}_{kind}_{style}{part}.{extension}.in"
    text = select_lines(place.read_text(encoding="utf-8"), {transport, service, engine or ""})
    text = text.replace("{usage}", _usage(run))
    return Starter(file, text, build, run)


def _usage(run: Sequence[str]) -> str:
    """`python3 server.py PORT`."""
    return re.sub(r"\{(\w+)\}", lambda match: match[1].upper(), " ".join(run))


def select_lines(text: str, tags: set[str]) -> str:
    """The lines of a file that belong to these words, or to none."""
    kept = []
    for line in text.splitlines():
        match = _CONDITIONAL_LINE.fullmatch(line)
        if match is None:
            kept.append(line)
        elif match[1] in tags:
            kept.append(match[2])
    return "\n".join(kept) + "\n"


def _commands(language: str, file: str, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    match language:
        case "c":
            target = name.lower()
            return ("cc", "-O2", "-Wall", "-Wextra", "-pthread", "-o", target, file), (f"./{target}",)
        case "java":
            return ("javac", "-Xlint:all", file), ("java", "-cp", ".", name)
    return (), ("python3", file)


def _arguments(role: str, transport: str) -> tuple[str, ...]:
    if transport == "unix":
        return ("{path}",)
    return ("{host}", "{port}") if role == "client" else ("{port}",)


def _check_known(kind: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        nearest = suggest.nearest(name, known)
        raise UnknownName(kind, name, nearest, f"there are {', '.join(known)}")
