"""The C programs beside this page: compiled on the spot, and run ahead of whatever else the machine does."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Where we may.
NICE = ["chrt", "-f", "10"] if os.geteuid() == 0 else []


def hurry() -> None:
    """Let this process and its children have most of the processors, where we may.

    For what must share them among themselves, as first in, first out would not. Linux shares them among
    sessions first (sched(7), autogroups), so there is a session of our own: not for the leader of a group.
    """
    with contextlib.suppress(PermissionError):
        os.setsid()
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("-20", encoding="ascii")
        os.nice(-20)


def compiled(programs: Path) -> None:
    """Put `epoll_server` and `generator` into this folder."""
    for name, more in (("epoll_server", []), ("generator", [str(HERE.parent / "native" / "ring.c"), "-lm"])):
        source = str(HERE / "c" / f"{name}.c")
        subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-o", str(programs / name), source, *more], check=True)
