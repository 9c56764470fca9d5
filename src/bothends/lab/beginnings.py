"""What a page can begin with: the examples beside this file, and the starters of `bothends new`.

An example is a folder: `example.toml` has its name and its programs, whose texts are in FILE.in.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bothends.lab.messages import DEFAULT_TIME_LIMIT, MAX_PROGRAMS, MAX_SOURCE, MAX_TIME_LIMIT
from bothends.lab.own_servers import EXAMPLE_ENGINES, engine_programs
from bothends.source_programs import LANGUAGES
from bothends.starters.writing import LANGUAGES as STARTER_LANGUAGES
from bothends.starters.writing import make_starter

_EXAMPLES: Final = Path(__file__).with_name("examples")
_PORT: Final = "12000"  # in a network namespace of the run every port is free
_TITLES: Final = {"python": "Python", "c": "C", "java": "Java"}


@functools.cache
def beginnings() -> dict[str, Any]:
    """Return the examples, the starters, the languages of this machine and the limits, for JSON."""
    return {
        "groups": [
            {"title": "Examples", "sets": [_example(each) for each in sorted(_EXAMPLES.iterdir())]},
            {"title": "To start from", "sets": list(_starters())},
            {"title": "Servers of bothends, to compare", "sets": list(_engines())},
        ],
        "languages": _languages(),
        "limits": {
            "programs": MAX_PROGRAMS,
            "source": MAX_SOURCE,
            "seconds": MAX_TIME_LIMIT,
            "default_seconds": DEFAULT_TIME_LIMIT,
        },
    }


def _languages() -> dict[str, str]:
    import shutil

    return {suffix: each.name for suffix, each in LANGUAGES.items() if shutil.which(each.tool)}


def _example(folder: Path) -> dict[str, Any]:
    description = tomllib.loads((folder / "example.toml").read_text(encoding="utf-8"))
    programs = [
        {
            "kind": each["kind"],
            "file": each["file"],
            "text": (folder / f"{each['file']}.in").read_text(encoding="utf-8"),
            "arguments": each.get("arguments", ""),
        }
        for each in description["program"]
    ]
    return {"name": description["name"], "programs": programs}


def _engines() -> Iterator[dict[str, Any]]:
    client = next(each for each in _example(_EXAMPLES / "1-capitals")["programs"] if each["kind"] == "client")
    for engine in EXAMPLE_ENGINES:
        yield {"name": f"Engine {engine}", "programs": engine_programs(engine, client, _PORT)}


def _starters() -> list[dict[str, Any]]:
    return [
        {
            "name": f"{_TITLES[language]}, {transport.upper()}, {style}",
            "programs": [_starter(role, language, transport, style) for role in ("server", "client")],
        }
        for language in STARTER_LANGUAGES
        for transport in ("tcp", "udp")
        for style in ("minimal", "robust")
    ]


def _starter(role: str, language: str, transport: str, style: str) -> dict[str, Any]:
    starter = make_starter(role, language, transport, style=style)
    words = [word for word in starter.run if word.startswith("{")]
    values = {"{port}": _PORT, "{host}": "127.0.0.1"}
    return {
        "kind": role,
        "file": starter.file,
        "text": starter.text,
        "arguments": " ".join(values[word] for word in words),
    }
