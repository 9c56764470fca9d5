"""How to build a submission with the build tool whose file it contains: make, CMake, npm's package.json.

The program that a build makes is found afterwards, as the executable that was not there before. If a tool
fails, the submission is built by its programming language: then `BuildPlan.fallback` is tried.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bothends.check.batch.build_plan import PROGRAM, BuildPlan

_MAX_TEXT: Final = 200_000  # characters of a build file that are read


@dataclass(frozen=True, slots=True)
class BuildTool:
    """A build tool: the command that must be installed, and what makes a plan of its file.

    `plan`: a function of the file, the role and the program's arguments; None: the file is not for it.
    """

    command: str
    plan: Callable[[Path, str, tuple[str, ...]], BuildPlan | None]


def find_project_plan(folder: Path, role: str, arguments: tuple[str, ...]) -> BuildPlan | None:
    """Return the plan of the first build file in a folder whose tool is installed, or None."""
    for name, tool in TOOLS.items():
        file = folder / name
        if file.is_file() and not file.is_symlink() and shutil.which(tool.command) is not None:
            plan = tool.plan(file, role, arguments)
            if plan is not None:
                return plan
    return None


def _make(file: Path, role: str, arguments: tuple[str, ...]) -> BuildPlan | None:
    text = _read(file)
    targets = re.findall(r"^([A-Za-z0-9_][\w.-]*)[ \t]*:(?!=)", text, re.MULTILINE)
    start: tuple[str, ...] = ()
    for target in (f"run-{role}", f"run_{role}", "run"):
        if target in targets:
            values = {"PORT": "{port}", "HOST": "{host}", "ARGS": " ".join(arguments)}
            used = set(re.findall(r"\$[({](\w+)", text))
            given = [f"{name}={value}" for name, value in values.items() if name in used]
            start = ("make", "-s", "-f", file.name, target, *given)
            break
    if start and targets[0] == start[4]:  # the default target would run the program
        return BuildPlan("make", (), start)
    build = ("make", "-f", file.name)
    return BuildPlan("make", (build,), (PROGRAM, *arguments), run_otherwise=start)


def _cmake(file: Path, role: str, arguments: tuple[str, ...]) -> BuildPlan | None:
    output = "build" if not (file.parent / "build").exists() else "build-check"  # a cache names its machine
    configure = ("cmake", "-S", ".", "-B", output, "-DFETCHCONTENT_FULLY_DISCONNECTED=ON")
    return BuildPlan("CMake", (configure, ("cmake", "--build", output)), (PROGRAM, *arguments))


def _package_json(file: Path, role: str, arguments: tuple[str, ...]) -> BuildPlan | None:
    try:
        found = json.loads(_read(file).removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None
    scripts, main = (found.get("scripts"), found.get("main")) if isinstance(found, dict) else (None, None)
    script = next(
        (scripts[name] for name in (role, "start") if isinstance(scripts, dict) and name in scripts), None
    )
    if isinstance(script, str) and script.strip() and "\0" not in script:
        return BuildPlan("Node.js", (), (*_script_command(script), *arguments))
    if isinstance(main, str) and (file.parent / main).is_file() and "\0" not in main:
        return BuildPlan("Node.js", (), ("node", main, *arguments))
    return None


def _script_command(script: str) -> tuple[str, ...]:
    """Return the command for a script of package.json: as npm, sh runs it, with the arguments at its end."""
    if re.fullmatch(r"node [\w ./-]+", script):
        return tuple(shlex.split(script))
    return ("sh", "-c", f'PATH="$PWD/node_modules/.bin:$PATH"; {script} "$@"', "sh")


def _read(file: Path) -> str:
    return file.read_text("utf-8", errors="replace")[:_MAX_TEXT]


TOOLS: Final[dict[str, BuildTool]] = {
    "GNUmakefile": BuildTool("make", _make),
    "makefile": BuildTool("make", _make),
    "Makefile": BuildTool("make", _make),
    "CMakeLists.txt": BuildTool("cmake", _cmake),
    "package.json": BuildTool("node", _package_json),
}
