"""How to build and run a submission: by its manifest, with its build tool, or by its programming language."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Final

from bothends.check.batch.build_plan import BuildPlan, NoRecipe
from bothends.check.batch.candidates import Candidate
from bothends.check.batch.manifest import MANIFEST, read_manifest
from bothends.check.batch.project_recipes import find_project_plan
from bothends.check.batch.source_evidence import find_evidence
from bothends.source_programs import LANGUAGES, SourceFile

_MAX_TEXT: Final = 200_000  # characters of a source file that are searched
_OTHERS_FOLDERS: Final = {"node_modules", "venv", "site-packages", "__pycache__", "CMakeFiles", "__MACOSX"}
_IMPORTS: Final = {
    ".py": re.compile(r"^[ \t]*(?:from[ \t]+\.?(\w+)[ \t]+import|import[ \t]+(\w+))", re.MULTILINE),
    ".js": re.compile(r"""(?:require\(|from)[ \t]*['"]\./([\w./-]+)['"]"""),
}
_UNUSED_BUILD_FILES: Final = ("pom.xml", "build.gradle", "build.gradle.kts")
_C_SUFFIXES: Final = {".c", ".cpp", ".cc"}
# Python's argparse with -p only, or getopt(3) with p:
_SHORT_OPTION: Final = re.compile(r"""add_argument\(\s*["']-p["']|\bgetopt\s*\([^"';]*["'][^"']*p:""")
_MAIN_PATTERNS: Final = {
    ".py": re.compile(r"__main__|\.bind\(|create_server\(|\.connect\(|create_connection\(|\.sendto\("),
    ".c": re.compile(r"\bmain\s*\("),
    ".cpp": re.compile(r"\bmain\s*\("),
    ".cc": re.compile(r"\bmain\s*\("),
    ".java": re.compile(r"\bstatic\s+(public\s+)?void\s+main\s*\("),
    ".js": re.compile(r""),
    ".go": re.compile(r"\bfunc\s+main\s*\("),
    ".rs": re.compile(r"\bfn\s+main\s*\("),
}


def find_recipe(folder: Path, role: str, transport: str = "tcp", *, typed: bool = False) -> BuildPlan:
    """Return how to build and run the submission in a folder.

    Args:
        role: "server" or "client".
        transport: the contract's: of several programs, one that speaks it is chosen.
        typed: the contract says what is typed on the server's standard input, so it gets no arguments.

    Raises:
        NoRecipe: it has no source file in a known language, or the language's tool is not installed.
        ConfigurationError: its manifest is invalid.
    """
    if (folder / MANIFEST).is_file():
        return read_manifest(folder / MANIFEST)
    arguments = () if typed else ("{port}",) if role == "server" else ("{host}", "{port}")
    project = find_project_plan(folder, role, arguments)
    try:
        plan = _from_sources(folder, role, transport, arguments)
    except NoRecipe:
        if project is None:
            raise
        return project
    return plan if project is None else replace(project, fallback=plan)


def _from_sources(folder: Path, role: str, transport: str, arguments: tuple[str, ...]) -> BuildPlan:
    """Return how to build and run a submission by its programming language."""
    source, remark = _find_main_source(folder, role, transport)
    language = LANGUAGES[source.suffix]
    arguments = with_options(source.read_text("utf-8", errors="replace")[:_MAX_TEXT], arguments)
    if shutil.which(language.tool) is None:
        raise NoRecipe(f"{source.name} needs {language.tool}, which is not installed here")
    name, others = str(source.relative_to(folder)), _other_files(folder, source)
    for file in _UNUSED_BUILD_FILES if language.name == "Java" else ():
        if (folder / file).is_file():
            remark = "; ".join(
                filter(None, (remark, f"built with javac: {file} needs a network, and is not used"))
            )

    def plan(*others: str) -> BuildPlan:
        recipe = language.recipe(SourceFile(source, name, ".", folder=folder, others=others))
        return BuildPlan(recipe.language, recipe.build, (*recipe.run, *arguments), remark=remark)

    return replace(plan(*others), fallback=plan()) if others else plan()


def with_options(text: str, arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Return a program's arguments, with the options before them that its text parses: --port, --host, -p.

    Args:
        text: its main source file.
        arguments: placeholders, such as {host} and {port}.
    """
    found: list[str] = []
    for argument in arguments:
        name = argument.strip("{}")
        if re.search(rf"""["']--{name}["']""", text):
            found.append(f"--{name}")
        elif name == "port" and _SHORT_OPTION.search(text):
            found.append("-p")
        found.append(argument)
    return tuple(found)


def _other_files(folder: Path, source: Path) -> tuple[str, ...]:
    """Return what a C or C++ compiler gets besides the main file: files without main(), and headers."""
    if source.suffix not in _C_SUFFIXES:
        return ()
    files = _source_files(folder, _C_SUFFIXES if source.suffix != ".c" else {".c"})
    main = _MAIN_PATTERNS[source.suffix]
    others = [
        str(path.relative_to(folder))
        for path in files
        if path != source and not main.search(path.read_text("utf-8", errors="replace")[:_MAX_TEXT])
    ]
    headers = {path.parent for path in _source_files(folder, {".h", ".hpp"})} - {source.parent}
    return (*others, *(f"-I{each.relative_to(folder)}" for each in sorted(headers)))


def _source_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files in a folder that have one of these suffixes, without those of tools and links."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in suffixes and path.is_file() and not path.is_symlink()
        and not _OTHERS_FOLDERS.intersection(path.relative_to(folder).parts)
    ]  # fmt: skip


def _find_main_source(folder: Path, role: str, transport: str) -> tuple[Path, str]:
    """Return the most likely main file, and a remark if it was chosen among several of its role.

    It has a main function, calls of the role and the transport, their names, and is near the top. If no file
    has a known main function, every source file is a candidate, because the build will tell.
    """
    found = _source_files(folder, _MAIN_PATTERNS)
    texts = {path: path.read_text("utf-8", errors="replace")[:_MAX_TEXT] for path in found}
    mains = [path for path in found if _MAIN_PATTERNS[path.suffix].search(texts[path])]
    if not found:
        raise NoRecipe("no source file in a known language")
    imported = {path: _imported_files(path, texts[path]) for path in found}
    modules = {each for files in imported.values() for each in files}
    candidates = [
        Candidate(path, path.relative_to(folder), find_evidence(path, *imported[path]), path in modules)
        for path in mains or found
    ]
    ranked = sorted(candidates, key=lambda each: each.rank(role, transport))
    rivals = [each for each in ranked if each.has_role(role)]
    remark = f"chose {ranked[0].name} of {len(rivals)} {role}s" if len(rivals) > 1 else ""
    return ranked[0].path, remark


def _imported_files(path: Path, text: str) -> set[Path]:
    """Return the files beside a Python or Node.js program that it imports."""
    pattern = _IMPORTS.get(path.suffix)
    names = [next(filter(None, match), "") for match in pattern.findall(text)] if pattern else []
    files = {path.parent / (name if name.endswith(path.suffix) else f"{name}{path.suffix}") for name in names}
    return {each for each in files if each != path and each.is_file() and not each.is_symlink()}
