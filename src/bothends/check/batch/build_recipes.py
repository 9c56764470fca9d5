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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bothends import suggest
from bothends.errors import ConfigurationError

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


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to get a program: the `build` commands, one after another, then the command to `run` it."""

    language: str
    build: tuple[tuple[str, ...], ...]
    run: tuple[str, ...]


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
    make_recipe, tool = _LANGUAGES[source.suffix]
    if shutil.which(tool) is None:
        raise NoRecipe(f"{source.name} needs {tool}, which is not installed here")
    return make_recipe(folder, source, arguments)


def _from_manifest(path: Path) -> Recipe:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8", errors="replace"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(path.name, "", "", f"invalid TOML: {error}") from error
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
    return Recipe("manifest", tuple(tuple(shlex.split(each)) for each in build), tuple(shlex.split(run)))


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


def _python(folder: Path, source: Path, arguments: Sequence[str]) -> Recipe:
    return Recipe("Python", (), ("python3", str(source.relative_to(folder)), *arguments))


def _c(folder: Path, source: Path, arguments: Sequence[str]) -> Recipe:
    name = str(source.relative_to(folder))
    return Recipe("C", (("cc", "-O1", "-pthread", "-o", "program", name, "-lm"),), ("./program", *arguments))


def _cpp(folder: Path, source: Path, arguments: Sequence[str]) -> Recipe:
    name = str(source.relative_to(folder))
    return Recipe("C++", (("c++", "-O1", "-pthread", "-o", "program", name),), ("./program", *arguments))


def _java(folder: Path, source: Path, arguments: Sequence[str]) -> Recipe:
    text = source.read_text("utf-8", errors="replace")
    package = re.search(r"^\s*package\s+([\w.]+)\s*;", text, re.MULTILINE)
    name = f"{package[1]}.{source.stem}" if package else source.stem
    files = [str(path.relative_to(folder)) for path in sorted(source.parent.glob("*.java"))]
    return Recipe("Java", (("javac", "-d", "classes", *files),), ("java", "-cp", "classes", name, *arguments))


def _node(folder: Path, source: Path, arguments: Sequence[str]) -> Recipe:
    return Recipe("Node.js", (), ("node", str(source.relative_to(folder)), *arguments))


def _go(folder: Path, source: Path, arguments: Sequence[str]) -> Recipe:
    package = "." if (folder / "go.mod").exists() else str(source.relative_to(folder))
    return Recipe("Go", (("go", "build", "-o", "program", package),), ("./program", *arguments))


def _rust(folder: Path, source: Path, arguments: Sequence[str]) -> Recipe:
    return Recipe(
        "Rust",
        (("rustc", "-O", "-o", "program", str(source.relative_to(folder))),),
        ("./program", *arguments),
    )


_LANGUAGES: Final[dict[str, tuple[Callable[[Path, Path, Sequence[str]], Recipe], str]]] = {
    ".py": (_python, "python3"),
    ".c": (_c, "cc"),
    ".cpp": (_cpp, "c++"),
    ".cc": (_cpp, "c++"),
    ".java": (_java, "javac"),
    ".js": (_node, "node"),
    ".go": (_go, "go"),
    ".rs": (_rust, "rustc"),
}
