"""The time of the commit, which a release has instead of the time of its build."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def commit_time() -> str:
    """Return the time of the last commit, or of pyproject.toml outside a repository."""
    found = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or str(int((ROOT / "pyproject.toml").stat().st_mtime))
