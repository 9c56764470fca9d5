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
from bothends.check.sandbox.kernel_memory import shared_mappings, socket_buffers
from bothends.check.sandbox.launcher import SandboxLimits

_POLL_INTERVAL: Final = 0.05  # seconds between two checks of a program's resources
# Processes below the limit at which a program is killed: at the limit itself, fork(2) fails, and the number
# of processes never exceeds it.
_PROCESS_MARGIN: Final = 8
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_CPU_TIMES: Final = slice(11, 15)  # utime, stime, cutime, cstime in /proc/PID/stat, after the name (proc(5))
_POLLS_OF_SOCKETS: Final = 4  # every fourth, because a listing of 2,000 sockets takes milliseconds
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
        self._polls = 0
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
        if self._exceeds_memory(pids):
            return f"over the limit of {limits.memory >> 20} MiB of memory"
        if max(sum(map(_cpu_seconds, pids)), group.cpu_seconds if group else 0.0) > limits.cpu:
            return f"over the limit of {limits.cpu} s of CPU time"
        return self.exit_reason()

    def _exceeds_memory(self, pids: list[int]) -> bool:
        """Whether memory that no control group counts is above the limit."""
        limit, group = self._limits.memory, self._group
        total = 0
        if group is None:
            usages = [*map(_memory_usage, pids)]
            total = sum(private + shared for private, shared, _ in usages)
            if total <= limit < total + sum(other for *_, other in usages):
                private, shared, _ = map(sum, zip(*usages, strict=True))
                total = private + max(shared, shared_mappings(pids))
        self._polls += 1
        if total <= limit and self._polls % _POLLS_OF_SOCKETS == 0 and (group is None or group.version == 1):
            total += socket_buffers(tcp_only=group is not None)
        return total > limit


def _memory_usage(pid: int) -> tuple[int, int, int]:
    """Return the private and the shared memory of a process and its other mappings, in bytes (proc(5)).

    Mapped files are not its memory; page tables are. The other mappings are the address space that is neither
    private and writable nor code, and holds the shared mappings.

    Memory shared with its parent since fork(2) counts for both. smaps_rollup would be exact, but it waits for
    the lock on the process's memory map, which a fork bomb holds almost all the time.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0, 0, 0
    fields = dict(line.split(":", 1) for line in lines if line.startswith(("Rss", "Vm")))

    def size(name: str) -> int:
        return int(fields[name].split()[0]) << 10 if name in fields else 0

    known = sum(map(size, ("VmData", "VmStk", "VmExe", "VmLib")))
    return size("RssAnon") + size("VmPTE"), size("RssShmem"), max(0, size("VmSize") - known)


def _cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and its children that have been waited for, in seconds."""
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return sum(map(int, fields[_CPU_TIMES])) / _TICKS
    return 0.0
