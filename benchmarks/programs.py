"""The C programs beside this page: compiled on the spot, and run ahead of whatever else the machine does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Where we may.
NICE = ["chrt", "-f", "10"] if os.geteuid() == 0 else []


def compiled(programs: Path) -> None:
    """Put `epoll_server` and `generator` into this folder."""
    for name, more in (("epoll_server", []), ("generator", [str(HERE.parent / "native" / "ring.c"), "-lm"])):
        source = str(HERE / "c" / f"{name}.c")
        subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-o", str(programs / name), source, *more], check=True)
