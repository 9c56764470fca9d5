"""How bothends starts itself once more: with the same Python, and with nothing out of the current folder.

That folder may be anybody's: a student's submission, or a lesson with a `socket.py` in it. `python -m` alone
looks there first (-P of python(1)).
"""

from __future__ import annotations

import sys


def self_command(module: str = "bothends") -> list[str]:
    """The words before its arguments. `module`: a part of it that is a program of its own."""
    return [sys.executable, "-P", "-m", module]
