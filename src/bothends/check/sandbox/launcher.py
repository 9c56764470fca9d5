"""The sandbox: programs that may do anything are let do little. What is allowed, and who sees to it.

| what | how |
|---|---|
| the network | the checker itself moves into a network namespace in which there is loopback only |
| files | all read-only, /run hidden, few devices; an empty folder in memory to write to |
| other processes | a process namespace: it sees its own only, and all end with the first |
| how many processes | setrlimit(2) and pid_max (`init.py`) |
| CPU time, size of a file, core dumps | setrlimit(2) (`init.py`) |
| memory, processes, output of all together | looked at while it runs (`TrafficWatcher`): who passes a limit is ended |

Files and processes are bubblewrap's work (bwrap(1)) where it is installed and works, and otherwise that of
`init.py`. The kernel's user namespaces are enough for either: nobody needs to be root. Where they are not
allowed the sandbox is refused, and never quietly left out.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import itertools
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bothends.check.sandbox import init
from bothends.errors import Unavailable

_CLONE_NEWNET: Final = 0x40000000  # sched.h
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1  # netdevice(7)
_LAUNCHER: Final = (sys.executable, "-I", "-S", init.__file__)
_POLL_INTERVAL: Final = 0.05  # seconds between looks
_MAX_ENTRIES: Final = 20_000  # files, which are past any limit even if they are empty
_PROCESS_MARGIN: Final = (
    8  # processes below the limit, at which the kernel refuses more and we should have noticed
)


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What one program under test may take, with all that it starts. Bytes and seconds."""

    memory: int = 1 << 30
    processes: int = 2048  # with threads; a thread for each of 1,100 clients is no hostile program
    disk: int = 64 << 20
    cpu: int = 120


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Starts programs under limits. Make it with `enter`. `bubblewrap` is its path where it is used."""

    limits: SandboxLimits = SandboxLimits()
    bubblewrap: str = ""

    def wrap(
        self, command: Sequence[str], scratch_dir: Path, *, writable: bool, hosts_file: Path | None = None
    ) -> list[str]:
        """The command that runs this one confined. `folder` is its own; `writable`: it may write there.

        `hosts` stands in for /etc/hosts.
        """
        (scratch_dir / "tmp").mkdir(exist_ok=True)
        limits = self.limits
        bounds = (f"CPU={limits.cpu}", f"FSIZE={limits.disk}", "CORE=0", f"NPROC={limits.processes}")
        if self.bubblewrap:
            around = self._bubblewrap_command(scratch_dir, writable=writable, hosts_file=hosts_file)
            place = (str(scratch_dir), "bounds", str(limits.disk), "-")
            return [*around, *_LAUNCHER, *place, *bounds, "--", *command]
        place = (str(scratch_dir), str(int(writable)), str(limits.disk), str(hosts_file or "-"))
        return [*_LAUNCHER, *place, *bounds, "--", *command]

    def _bubblewrap_command(self, scratch_dir: Path, *, writable: bool, hosts_file: Path | None) -> list[str]:
        """The first three steps of `init.py` in bubblewrap's words, with what it needs for the others."""
        words = [self.bubblewrap, "--unshare-user", "--unshare-pid", "--unshare-ipc", "--die-with-parent"]
        words += ["--cap-drop", "ALL"]
        words += ["--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_SETPCAP"]  # until it drops them itself
        words += ["--ro-bind", "/", "/", "--dev", "/dev", "--remount-ro", "/dev"]
        words += ["--proc", "/proc"]
        if init.can_hide_run(str(scratch_dir), os.getcwd()):  # noqa: PTH109
            words += ["--tmpfs", "/run", "--remount-ro", "/run"]
        if writable:
            words += ["--bind", str(scratch_dir), str(scratch_dir)]
        if hosts_file is not None:
            words += ["--ro-bind", str(hosts_file), "/etc/hosts"]
        return [*words, "--"]

    @property
    def note(self) -> str:
        """What it is, for a report."""
        by = "by bubblewrap" if self.bubblewrap else "in user namespaces"
        return (
            f"each program ran confined {by}: loopback only, all files read-only, no processes but its own, "
            f"{self.limits.memory >> 20} MiB and {self.limits.processes} processes"
        )


def with_hosts_file(command: Sequence[str], scratch_dir: Path, hosts_file: Path) -> list[str]:
    """The command that runs this one with another /etc/hosts, and all else as it is."""
    return [*_LAUNCHER, str(scratch_dir), "all", "0", str(hosts_file), "--", *command]


def enter(limits: SandboxLimits | None = None) -> Sandbox:
    """Move this process into a network namespace with loopback only. Before any thread is started.

    Raises:
        Unavailable: the system doesn't allow it, or not what the programs need.
    """
    _unshare_network()
    complaint = ""
    for bubblewrap in sorted({shutil.which("bwrap") or "", ""}, reverse=True):
        sandbox = Sandbox(limits or SandboxLimits(), bubblewrap)
        if not (complaint := _probe_error(sandbox)):
            return sandbox
    raise Unavailable("make", "a sandbox", reason=complaint, hint="judge without --sandbox whom you trust")


def _probe_error(sandbox: Sandbox) -> str:
    """Why nothing can be run in the sandbox; "" if it can."""
    with tempfile.TemporaryDirectory(prefix="bothends-check-") as folder:
        command = sandbox.wrap([sys.executable, "-I", "-S", "-c", ""], Path(folder), writable=True)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        return (done.stderr.strip() or f"status {done.returncode}") if done.returncode else ""


def _unshare_network() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    flags = _CLONE_NEWNET if user == 0 else _CLONE_NEWNET | init.CLONE_NEWUSER
    if libc.unshare(flags) < 0:
        hint = "user namespaces are turned off: see user_namespaces(7), or judge without --sandbox"
        raise Unavailable("make", "a network namespace", ctypes.get_errno(), hint)
    if user != 0:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            Path(f"/proc/self/{name}").write_text(text, encoding="ascii")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14x", b"lo", 0)
        (found,) = struct.unpack("16xH14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", found | _IFF_UP))


class ResourceMonitor:
    """Looks at a confined program from outside. `family` gives its processes, `folder` is what they may write
    to on disk; `end` is called once, with the reason, when they take too much, and has to end them.
    """

    def __init__(
        self,
        limits: SandboxLimits,
        process_tree: Callable[[], list[int]],
        on_exceeded: Callable[[str], None],
        writable_dir: Path | None = None,
    ) -> None:
        self._writable_dir = writable_dir
        self._limits = limits
        self._process_tree = process_tree
        self._on_exceeded = on_exceeded
        self._task = asyncio.ensure_future(self._poll())

    def stop(self) -> None:
        """Look no more."""
        self._task.cancel()

    async def _poll(self) -> None:
        reason = ""
        while not reason:
            await asyncio.sleep(_POLL_INTERVAL)
            reason = self._exceeded_limit()
        self._on_exceeded(reason)

    def _exceeded_limit(self) -> str:
        pids = self._process_tree()
        if len(pids) >= self._limits.processes - _PROCESS_MARGIN:
            return f"it has {self._limits.processes} processes or more"
        if sum(map(_memory_usage, pids)) > self._limits.memory:
            return f"it takes more than {self._limits.memory >> 20} MiB of memory"
        if self._writable_dir is not None and _disk_usage(self._writable_dir) > self._limits.disk:
            return f"it writes more than {self._limits.disk >> 20} MiB"
        return ""


def _disk_usage(folder: Path) -> int:
    """Bytes that a folder takes on disk; each entry counts for a block at least, and only so many count."""
    total = 0
    entries = (f"{place}/{name}" for place, folders, files in os.walk(folder) for name in (*folders, *files))
    for entry in itertools.islice(entries, _MAX_ENTRIES):
        with suppress(OSError):
            total += max(os.lstat(entry).st_blocks * 512, 4096)
    return total


def _memory_usage(pid: int) -> int:
    """Bytes that a process holds in memory, without what it has mapped of files (proc(5), /proc/PID/status).

    What it shares with its parent since fork() counts for both. smaps_rollup would know better, but waits for
    the memory map of the process, which who forks without end hardly ever lets go.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
