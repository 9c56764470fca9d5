"""The Pythons of this machine that a release is built for and tested with."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

MINORS = range(11, 20)  # of Python 3
# Prints the path of the interpreter itself, if it can build extensions and make environments.
_PROBE = """
import ensurepip, os, sys, sysconfig, venv
header = os.path.join(sysconfig.get_path("include"), "Python.h")
print(os.path.realpath(sys.executable) if os.path.exists(header) else "")
"""


def find_interpreters() -> dict[str, Path]:
    """Return the interpreters by version ("3.11"): those in PATH, then those that pyenv installed."""
    found: dict[str, Path] = {}
    for minor in MINORS:
        name = f"python3.{minor}"
        for candidate in _candidates(name, f"3.{minor}"):
            probed = subprocess.run(
                [str(candidate), "-I", "-c", _PROBE], capture_output=True, text=True, check=False
            )
            if probed.returncode == 0 and probed.stdout.strip():
                found[f"3.{minor}"] = Path(probed.stdout.strip())
                break
    return found


def _candidates(name: str, version: str) -> Iterator[Path]:
    for folder in os.get_exec_path():
        if (path := shutil.which(name, path=folder)) is not None:
            yield Path(path)
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(root.glob(f"versions/{version}.*/bin/{name}"), reverse=True)
