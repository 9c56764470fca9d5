"""Whether this system supports wires, and the programs that the tests run in hosts."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bothends.wire import interfaces

FOLDER = Path(__file__).parent
BOTHENDS = f"{sys.executable} -m bothends"


@functools.cache
def wire_unavailable_reason() -> str:
    """Return why this system does not support wires; empty if it does."""
    tried = subprocess.run(
        [*BOTHENDS.split(), "wire", "-q", "--", "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return tried.stderr.strip() if tried.returncode == 69 else ""


def program(name: str, *arguments: object) -> str:
    """Return a command line that runs a program of this folder."""
    return " ".join([sys.executable, str(FOLDER / "programs" / name), *map(str, arguments)])


needs_hosts = pytest.mark.skipif(
    bool(wire_unavailable_reason()), reason=wire_unavailable_reason() or "wires are supported"
)
needs_tun = pytest.mark.skipif(
    not os.access(interfaces.TUN, os.R_OK | os.W_OK), reason=f"{interfaces.TUN} can't be opened"
)
