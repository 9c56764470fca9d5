"""Polling of a confined program's resources, and the reason why it was killed.

Where the program has a control group, the kernel enforces the limits and this module reports them; otherwise
it sums up what the program's processes use. Either way it kills a program that exceeds a limit with all its
processes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from bothends.check.sandbox.control_groups import ControlGroup
from bothends.check.sandbox.launcher import SandboxLimits

_POLL_INTERVAL: Final = 0.05  # seconds between two checks of a program's resources
# Processes below the limit at which a program is killed: at the limit itself, fork(2) fails, and the number
# of processes never exceeds it.
_PROCESS_MARGIN: Final = 8
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_CPU_TIMES: Final = slice(11, 15)  # utime, stime, cutime, cstime in /proc/PID/stat, after the name (proc(5))
_REMOVAL_ATTEMPTS: Final = 200  # x 5 ms


class ResourceMonitor:
    """Polls the resources of a confined program from outside the sandbox.

    `process_tree` returns its process ids; `on_exceeded` is called once, with the reason, when a limit is
    exceeded, and must kill the program.
    """

    def __init__(
        self,
        limits: SandboxLimits,
        process_tree: Callable[[], list[int]],
        on_exceeded: Callable[[str], None],
        group: ControlGroup | None,
    ) -> None:
        self._limits = limits
        self._process_tree = process_tree
        self._on_exceeded = on_exceeded
        self._group = group
        self._task = asyncio.ensure_future(self._poll())

    async def stop(self) -> None:
        """Stop polling, and remove the control group, whose processes must have been killed."""
        self._task.cancel()
        for _ in range(_REMOVAL_ATTEMPTS):
            if self._group is None or self._group.remove():
                return
            await asyncio.sleep(0.005)

    def exit_reason(self) -> str:
        """Return which limit the kernel has killed the program for, or ""."""
        if self._group is not None and self._group.out_of_memory:
            return f"over the limit of {self._limits.memory >> 20} MiB of memory"
        return ""

    async def _poll(self) -> None:
        reason = ""
        while not reason:
            await asyncio.sleep(_POLL_INTERVAL)
            reason = self._exceeded_limit()
        self._on_exceeded(reason)

    def _exceeded_limit(self) -> str:
        pids = self._process_tree()
        limits, group = self._limits, self._group
        full = group is not None and group.out_of_processes
        if full or len(pids) >= limits.processes - _PROCESS_MARGIN:
            return f"over the limit of {limits.processes} processes"
        if group is None and sum(map(_memory_usage, pids)) > limits.memory:
            return f"over the limit of {limits.memory >> 20} MiB of memory"
        if max(sum(map(_cpu_seconds, pids)), group.cpu_seconds if group else 0.0) > limits.cpu:
            return f"over the limit of {limits.cpu} s of CPU time"
        return self.exit_reason()


def _memory_usage(pid: int) -> int:
    """Return the memory of a process in bytes, without mapped files (proc(5), /proc/PID/status).

    Memory shared with its parent since fork(2) counts for both. smaps_rollup would be exact, but it waits for
    the lock on the process's memory map, which a fork bomb holds almost all the time.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def _cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and its children that have been waited for, in seconds."""
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return sum(map(int, fields[_CPU_TIMES])) / _TICKS
    return 0.0
