"""The manifest of a submission, `check.toml`: how to build and run it, instead of what its source files say.

    build = ["cc -O2 -o server server.c"]
    run = "./server {port}"
    input = "{port}\\n"       # a server that asks for its port at the keyboard

Its author is the program's, so every value may be wrong. An error names the key, in one line.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any, Final

from bothends import suggest
from bothends.check.batch.build_plan import BuildPlan
from bothends.errors import ConfigurationError

MANIFEST: Final = "check.toml"
MAX_INPUT: Final = 1000  # characters: as in a contract
_EXAMPLES: Final = {
    "build": 'build = ["make"]',
    "run": 'run = "./server {port}"',
    "input": 'input = "{port}\\n"',
}
_EXAMPLES_WITH_SHELL: Final = {
    "build": """build = ["sh -c 'cd src && make'"]""",
    "run": """run = "sh -c 'cd bin && exec ./server {port}'\"""",
}
_KINDS: Final = {  # of TOML, by the type that tomllib makes of it
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    str: "a string",
    list: "an array",
    dict: "a table",
}
_PLACEHOLDERS: Final = ("host", "port", "path", "dir", "message")
_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")
_SHELL_WORDS: Final = {"&&", "||", "|", ";", "&", ">", ">>", "<", "2>&1"}


def read_manifest(path: Path) -> BuildPlan:
    """Return how to build and run a submission by its manifest.

    Raises:
        ConfigurationError: the manifest is invalid.
    """
    try:
        # A BOM, as some editors write it, is no part of the text.
        found = tomllib.loads(path.read_text(encoding="utf-8-sig", errors="replace"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(path.name, "", "", f"invalid TOML: {error}") from error
    except RecursionError as error:
        raise ConfigurationError(path.name, "", "", "nested too deeply") from error
    for key in found:
        if key not in _EXAMPLES:
            nearest = suggest.nearest(key, tuple(_EXAMPLES))
            hint = f"did you mean {nearest!r}?" if nearest else f"the keys are {', '.join(_EXAMPLES)}"
            raise ConfigurationError(path.name, "", key, "unknown key", hint)
    if "run" not in found:
        raise _wrong("run", "it is missing")
    run, build, typed = found["run"], found.get("build", []), found.get("input", "")
    if not isinstance(run, str):
        raise _wrong("run", f"it must be a string, and is {_kind(run)}")
    if not isinstance(build, list):
        raise _wrong("build", f"it must be an array of strings, and is {_kind(build)}")
    for number, each in enumerate(build, start=1):
        if not isinstance(each, str):
            raise _wrong("build", f"command {number} must be a string, and is {_kind(each)}")
    if not isinstance(typed, str):
        raise _wrong("input", f"it must be a string, and is {_kind(typed)}")
    if len(typed) > MAX_INPUT:
        raise _wrong("input", f"it has {len(typed):,} characters, and may have {MAX_INPUT:,}")
    if "\0" in typed:
        raise _wrong("input", "it has a NUL")
    _check_placeholders("input", typed)
    builds = tuple(_split("build", each) for each in build)
    return BuildPlan("manifest", builds, _split("run", run), typed)


def _wrong(key: str, reason: str) -> ConfigurationError:
    return ConfigurationError(MANIFEST, "", key, reason, f"for example, {_EXAMPLES[key]}")


def _kind(value: Any) -> str:
    """Return the name of a value's type in TOML."""
    return _KINDS.get(type(value), "a date or a time")


def _split(key: str, command: str) -> tuple[str, ...]:
    """Return the words of a command.

    Raises:
        ConfigurationError: it is empty, has an unbalanced quote, or a NUL, which execve(2) cannot pass, or
            is meant for a shell.
    """
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise ConfigurationError(MANIFEST, "", key, f"invalid command: {error}") from error
    if not words or "\0" in command:
        raise _wrong(key, "a NUL in a command" if words else "a command is empty")
    # Between blanks in the text, too: in quotes, it is the program's.
    if shell_word := next((word for word in command.split() if word in _SHELL_WORDS.intersection(words)), ""):
        raise ConfigurationError(
            MANIFEST, "", key, f"no shell runs the command, so {shell_word} has no meaning in it",
            f"give it to a shell: {_EXAMPLES_WITH_SHELL[key]}",
        )  # fmt: skip
    if key == "run":
        _check_placeholders(key, command)
    return words


def _check_placeholders(key: str, text: str) -> None:
    """Refuse a placeholder in another case. Other braces stay, because they may be the program's own."""
    for name in _PLACEHOLDER.findall(text):
        if name not in _PLACEHOLDERS and name.lower() in _PLACEHOLDERS:
            raise ConfigurationError(
                MANIFEST, "", key, f"unknown placeholder {{{name}}}", f"write {{{name.lower()}}}"
            )
