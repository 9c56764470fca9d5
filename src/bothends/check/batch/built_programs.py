"""Find the program that a build has made: the executable that was not there before it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from bothends.check.batch.build_plan import PROGRAM, BuildPlan
from bothends.check.batch.candidates import Candidate
from bothends.check.batch.source_evidence import find_evidence

_ELF: Final = b"\x7fELF"
_INTERMEDIATE: Final = {"CMakeFiles", "deps", "node_modules"}  # folders of a build tool's own programs


def executables(folder: Path) -> dict[Path, str]:
    """Return the compiled programs in a folder, each with a digest of its content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if _INTERMEDIATE.intersection(path.relative_to(folder).parts) or ".so" in path.suffixes:
            continue
        if path.is_symlink() or not path.is_file() or not path.stat().st_mode & 0o111:
            continue
        with path.open("rb") as file:
            if file.read(len(_ELF)) == _ELF:
                file.seek(0)
                found[path] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def with_built_program(
    plan: BuildPlan, folder: Path, before: Mapping[Path, str], role: str, transport: str
) -> BuildPlan | None:
    """Return a plan whose command names the program that its build has made.

    Args:
        before: the executables before the build; one of them is taken only if the build has made no other.

    Returns: the plan, or None if there is no such program.
    """
    if PROGRAM not in plan.run:
        return plan
    after = executables(folder)
    changed = [path for path, digest in after.items() if before.get(path) != digest]
    candidates = [Candidate(path, path.relative_to(folder), find_evidence(path)) for path in changed or after]
    if not candidates:
        return replace(plan, run=plan.run_otherwise) if plan.run_otherwise else None
    ranked = sorted(candidates, key=lambda each: each.rank(role, transport))
    rivals = [each for each in ranked if each.has_role(role)]
    remark = f"chose {ranked[0].name} of {len(rivals)} {role}s" if len(rivals) > 1 else ""
    run = tuple(f"./{ranked[0].name}" if word == PROGRAM else word for word in plan.run)
    return replace(plan, run=run, remark=remark)
