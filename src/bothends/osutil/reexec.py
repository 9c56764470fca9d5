"""The command that re-executes bothends with the same interpreter, ignoring the current directory.

The current directory may hold untrusted files: a student's submission, or a lesson with a `socket.py`.
`python -m` alone would import modules from it first (-P of python(1)).
"""

from __future__ import annotations

import sys


def self_command(module: str = "bothends") -> list[str]:
    """Return the command without arguments. `module` is a submodule that is a program of its own."""
    return [sys.executable, "-P", "-m", module]
