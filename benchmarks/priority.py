"""Give the measured processes priority over other processes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

# Real-time priority needs CAP_SYS_NICE.
NICE = ["chrt", "-f", "10"] if os.geteuid() == 0 else []


def raise_priority() -> None:
    """Raise the priority of this process and its children, if permitted.

    For processes that must share CPUs with each other, which SCHED_FIFO would not do. Linux divides CPU time
    among sessions first (sched(7), autogroups), so this starts a new session. A process-group leader cannot.
    """
    with contextlib.suppress(PermissionError):
        os.setsid()
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("-20", encoding="ascii")
        os.nice(-20)
