"""Describe the host, and measure the resources of the server's processes, from /proc (proc(5)).

CPU times in /proc are in clock ticks of 10 ms, too coarse for a short round. So the CPU time of a running
process is read from its CPU clock (clock_getcpuclockid(3)), in nanoseconds.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from bothends.bench.results import ServerCost
from bothends.osutil.process_info import descendants, thread_ids

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED: Final = 2  # clock type in the clock id that glibc's clock_getcpuclockid(3) makes of a pid
_LIBRARIES: Final = ("bothends", "uvloop", "gevent", "twisted", "trio")
_SYSCTLS: Final = (
    "net/core/somaxconn",
    "net/ipv4/tcp_congestion_control",
    "net/ipv4/tcp_tw_reuse",
    "kernel/io_uring_disabled",
)


def host_info() -> dict[str, str]:
    """Return name -> value: kernel, processors, Python, libraries, and relevant kernel settings."""
    found = {
        "kernel": f"{platform.system()} {platform.release()}",
        "processors": f"{os.cpu_count()}, {_cpu_model()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for library in _LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    for setting in _SYSCTLS:
        try:
            found[setting.replace("/", ".")] = Path("/proc/sys", setting).read_text().strip()
        except OSError:
            continue
    found["governor"] = _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    found["load average"] = "{:.2f} {:.2f} {:.2f}".format(*os.getloadavg())
    return {name: value for name, value in found.items() if value}


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        if line.startswith(("model name", "Model", "Hardware")):
            return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """Resource usage at the time `at`: `cpu` in seconds, `switches` in context switches."""

    at: float
    cpu: float
    switches: int


def process_usage(pid: int) -> ProcessUsage:
    """Return the usage of a process and all its running descendants; zero if it has exited."""
    cpu, switches = 0.0, 0
    for each in (pid, *descendants(pid)):
        cpu += _cpu_time(each)
        switches += sum(_context_switches(each, tid) for tid in thread_ids(each))
    return ProcessUsage(time.monotonic(), cpu, switches)


def server_cost(before: ProcessUsage, after: ProcessUsage, requests: int) -> ServerCost | None:
    """Return the cost per request between two measurements; None without requests."""
    if not requests:
        return None
    seconds = max(after.at - before.at, 1e-9)
    cpu = max(after.cpu - before.cpu, 0.0)
    return ServerCost(
        cpu * 1e6 / requests, cpu / seconds, max(after.switches - before.switches, 0) / requests
    )


def private_memory(pid: int) -> int:
    """Return the resident anonymous memory of a process and its descendants in KiB."""
    return sum(_anonymous_memory(each) for each in (pid, *descendants(pid)))


def _cpu_time(pid: int) -> float:
    """Return the CPU seconds of a process and of its children that it has waited for."""
    try:
        own = time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return own + sum(map(int, fields[13:15])) / _TICKS


def _context_switches(pid: int, tid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/task/{tid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def _anonymous_memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
