"""How to build and run a submission: from its manifest, or by its programming language.

The manifest is `check.toml` in the submission's folder:

    build = ["cc -O2 -o server server.c"]
    run = "./server {port}"
"""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Final

from bothends import suggest
from bothends.errors import ConfigurationError
from bothends.source_programs import LANGUAGES, Recipe, SourceFile

MANIFEST: Final = "check.toml"
_MAIN_PATTERNS: Final = {
    ".py": re.compile(r"__main__|\.bind\(|create_server\(|\.connect\(|create_connection\("),
    ".c": re.compile(r"\bmain\s*\("),
    ".cpp": re.compile(r"\bmain\s*\("),
    ".cc": re.compile(r"\bmain\s*\("),
    ".java": re.compile(r"\bstatic\s+(public\s+)?void\s+main\s*\("),
    ".js": re.compile(r""),
    ".go": re.compile(r"\bfunc\s+main\s*\("),
    ".rs": re.compile(r"\bfn\s+main\s*\("),
}


class NoRecipe(Exception):
    """The submission has no known way to be built and run; the message says why."""


def find_recipe(folder: Path, role: str) -> Recipe:
    """Return how to build and run the submission in a folder. `role`: "server" or "client".

    Raises:
        NoRecipe: it has no source file in a known language, or the language's tool is not installed.
        ConfigurationError: its manifest is invalid.
    """
    if (folder / MANIFEST).is_file():
        return _from_manifest(folder / MANIFEST)
    arguments = ("{port}",) if role == "server" else ("{host}", "{port}")
    source = _find_main_source(folder, role)
    language = LANGUAGES[source.suffix]
    if shutil.which(language.tool) is None:
        raise NoRecipe(f"{source.name} needs {language.tool}, which is not installed here")
    recipe = language.recipe(SourceFile(source, str(source.relative_to(folder)), ".", folder=folder))
    return replace(recipe, run=(*recipe.run, *arguments))


def _from_manifest(path: Path) -> Recipe:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8", errors="replace"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(path.name, "", "", f"invalid TOML: {error}") from error
    except RecursionError as error:
        raise ConfigurationError(path.name, "", "", "nested too deeply") from error
    for key in found:
        if key not in ("build", "run"):
            nearest = suggest.nearest(key, ("build", "run"))
            raise ConfigurationError(
                path.name, "", key, "unknown key", f"did you mean {nearest!r}?" if nearest else ""
            )
    build, run = found.get("build", []), found.get("run")
    if not isinstance(run, str) or not isinstance(build, list) or not all(isinstance(x, str) for x in build):
        raise ConfigurationError(
            path.name, "", "run", "run must be a string, and build a list of strings",
            'for example, run = "./server {port}"',
        )  # fmt: skip
    return Recipe("manifest", tuple(_split(path, "build", each) for each in build), _split(path, "run", run))


def _split(path: Path, key: str, command: str) -> tuple[str, ...]:
    """Return the words of a command.

    Raises:
        ConfigurationError: it is empty, has an unbalanced quote, or a NUL, which execve(2) cannot pass.
    """
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise ConfigurationError(path.name, "", key, f"invalid command: {error}") from error
    if not words or "\0" in command:
        raise ConfigurationError(
            path.name, "", key, "a command is empty" if not words else "a NUL in a command"
        )
    return words


def _find_main_source(folder: Path, role: str) -> Path:
    """Return the most likely main file: one with a main function, named after the role, near the top.

    If none has a known main function, every source file is a candidate, because the build will tell.
    """
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in _MAIN_PATTERNS and path.is_file() and not path.is_symlink()
    ]
    mains = [
        path
        for path in found
        if _MAIN_PATTERNS[path.suffix].search(path.read_text("utf-8", errors="replace")[:200_000])
    ]
    other = "client" if role == "server" else "server"
    ranked = sorted(
        mains or found,
        key=lambda path: (
            role not in path.name.lower(),
            other in path.name.lower(),
            len(path.relative_to(folder).parts),
            path.name,
        ),
    )
    if not ranked:
        raise NoRecipe("no source file in a known language")
    return ranked[0]
