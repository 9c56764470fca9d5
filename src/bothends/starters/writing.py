"""Make starter programs from their templates.

The templates of a language are in one file beside this one, `LANGUAGE.in`, each below a line
`==> ROLE_KIND_STYLE <==`, where KIND is "stream" or "datagram". A line that begins with `@tag|` is only in
programs with that transport, service or engine, and `{usage}` is replaced. Everything else is the program
itself, so that a template reads like one.

Rank 4: imports `errors` and `suggest` only.
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
"""How a robust stream server handles several clients, by language, the default first."""

_FOLDER: Final = Path(__file__).parent
_CONDITIONAL_LINE: Final = re.compile(r"@(\w+)\|(.*)")


@dataclass(frozen=True, slots=True)
class Starter:
    """A starter program: the name of its `file`, its `text`, and the commands to `build` and to `run` it.

    `build` is empty if nothing is built; `run` has the placeholders `{port}`, `{host}` and `{path}`.
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
    """Return the starter for these options. The values are those of the constants above.

    Raises:
        UnknownName: unknown role, language, transport, service, style or engine.
        UnsupportedCombination: an engine for a program other than a robust stream server.
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
    suffix = ""
    if engine is not None:
        _check_known(f"engine for {language}", engine, ENGINES[language])
        if (role, kind, style) != ("server", "stream", "robust"):
            raise UnsupportedCombination(
                f"engine {engine}",
                f"a {style} {role} on {transport}",
                "engines are for robust stream servers",
            )
        suffix = f"_{engine}" if engine != ENGINES[language][0] else ""
    extension = LANGUAGES[language]
    name = "Server" if role == "server" else "Client"
    file = f"{name}.{extension}" if language == "java" else f"{role}.{extension}"
    build, start = _commands(language, file, name)
    run = (*start, *_arguments(role, transport))
    template = read_template(language, f"{role}_{kind}_{style}{suffix}")
    text = select_lines(template, {transport, service, engine or ""})
    text = text.replace("{usage}", _usage(run))
    return Starter(file, text, build, run)


def read_template(language: str, name: str) -> str:
    """Return the template of a language with a name, such as server_stream_robust."""
    text = (_FOLDER / f"{language}.in").read_text(encoding="utf-8")
    return text.partition(f"==> {name} <==\n")[2].partition("==> ")[0]


def _usage(run: Sequence[str]) -> str:
    """Return the usage for a command, such as `python3 server.py PORT`."""
    return re.sub(r"\{(\w+)\}", lambda match: match[1].upper(), " ".join(run))


def select_lines(text: str, tags: set[str]) -> str:
    """Return the lines of a template without a tag, or with one of these tags."""
    selected = []
    for line in text.splitlines():
        match = _CONDITIONAL_LINE.fullmatch(line)
        if match is None:
            selected.append(line)
        elif match[1] in tags:
            selected.append(match[2])
    return "\n".join(selected) + "\n"


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
        raise UnknownName(kind, name, nearest, f"use {', '.join(known)}")
