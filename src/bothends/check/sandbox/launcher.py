"""The sandbox: confine programs under test that are not trusted.

| resource | restriction |
|---|---|
| network | the checker itself moves into a network namespace with only a loopback interface |
| files | all read-only, /run hidden, few devices; an empty writable folder in memory |
| other processes | a process namespace: its own processes only, and all exit with the first |
| number of processes | setrlimit(2) and pid_max (`init.py`) |
| CPU time, size of a file, core dumps | setrlimit(2) (`init.py`) |
| total memory, processes and disk use | polled (`ResourceMonitor`): a program over a limit is killed |

bubblewrap (bwrap(1)) restricts files and processes if it is installed and works, `init.py` otherwise. Both
need user namespaces, but not root. If the system does not allow them, `enter` raises an error: no program
runs unconfined instead.
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
_POLL_INTERVAL: Final = 0.05  # seconds between two checks of a program's resources
_MAX_ENTRIES: Final = 20_000  # files, which exceed any limit even if they are empty
# Processes below the limit at which a program is killed: at the limit itself, fork(2) fails, and the number
# of processes never exceeds it.
_PROCESS_MARGIN: Final = 8


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """The limits of one program under test and its descendants, in bytes and seconds."""

    memory: int = 1 << 30
    processes: int = 2048  # including threads: a thread for each of 1,100 clients is not hostile
    disk: int = 64 << 20
    cpu: int = 120


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox, created by `enter`. `bubblewrap`: the path of bwrap(1), or "" if it is not used."""

    limits: SandboxLimits = SandboxLimits()
    bubblewrap: str = ""

    def wrap(
        self, command: Sequence[str], scratch_dir: Path, *, writable: bool, hosts_file: Path | None = None
    ) -> list[str]:
        """Return the command that runs `command` in the sandbox.

        Args:
            scratch_dir: the program's own folder.
            writable: whether the program may write to it.
            hosts_file: a replacement for /etc/hosts.
        """
        (scratch_dir / "tmp").mkdir(exist_ok=True)
        limits = self.limits
        rlimits = (f"CPU={limits.cpu}", f"FSIZE={limits.disk}", "CORE=0", f"NPROC={limits.processes}")
        if self.bubblewrap:
            bubblewrap = self._bubblewrap_command(scratch_dir, writable=writable, hosts_file=hosts_file)
            arguments = (str(scratch_dir), "bounds", str(limits.disk), "-")
            return [*bubblewrap, *_LAUNCHER, *arguments, *rlimits, "--", *command]
        arguments = (str(scratch_dir), str(int(writable)), str(limits.disk), str(hosts_file or "-"))
        return [*_LAUNCHER, *arguments, *rlimits, "--", *command]

    def _bubblewrap_command(self, scratch_dir: Path, *, writable: bool, hosts_file: Path | None) -> list[str]:
        """Return bubblewrap's options for the first three steps of `init.py`, which does the others."""
        words = [self.bubblewrap, "--unshare-user", "--unshare-pid", "--unshare-ipc", "--die-with-parent"]
        words += ["--cap-drop", "ALL"]
        words += ["--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_SETPCAP"]  # until init.py drops them
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
        """A description for a report."""
        by = "by bubblewrap" if self.bubblewrap else "in user namespaces"
        return (
            f"each program ran confined {by}: loopback only, files read-only, only its own processes, "
            f"at most {self.limits.memory >> 20} MiB and {self.limits.processes} processes"
        )


def with_hosts_file(command: Sequence[str], scratch_dir: Path, hosts_file: Path) -> list[str]:
    """Return the command that runs `command` with another /etc/hosts, otherwise unconfined."""
    return [*_LAUNCHER, str(scratch_dir), "all", "0", str(hosts_file), "--", *command]


def enter(limits: SandboxLimits | None = None) -> Sandbox:
    """Move this process into a network namespace with only loopback, and return a sandbox that works.

    Call it before any thread is started, because unshare(2) with a user namespace requires a single thread.

    Raises:
        Unavailable: the system does not allow the namespaces, or mounts in them.
    """
    _unshare_network()
    error = ""
    for bubblewrap in sorted({shutil.which("bwrap") or "", ""}, reverse=True):
        sandbox = Sandbox(limits or SandboxLimits(), bubblewrap)
        if not (error := _probe_error(sandbox)):
            return sandbox
    raise Unavailable("create", "a sandbox", reason=error, hint="omit --sandbox for programs that you trust")


def _probe_error(sandbox: Sandbox) -> str:
    """Return the error of a program that does nothing in the sandbox, or ""."""
    with tempfile.TemporaryDirectory(prefix="bothends-check-") as folder:
        command = sandbox.wrap([sys.executable, "-I", "-S", "-c", ""], Path(folder), writable=True)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        return (done.stderr.strip() or f"status {done.returncode}") if done.returncode else ""


def _unshare_network() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    flags = _CLONE_NEWNET if user == 0 else _CLONE_NEWNET | init.CLONE_NEWUSER
    if libc.unshare(flags) < 0:
        hint = "user namespaces are disabled: see user_namespaces(7), or omit --sandbox"
        raise Unavailable("create", "a network namespace", ctypes.get_errno(), hint)
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
    """Polls the resources of a confined program from outside the sandbox.

    `process_tree` returns its process ids; `writable_dir` is the folder on disk that it may write to, if any;
    `on_exceeded` is called once, with the reason, when a limit is exceeded, and must kill the program.
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
        """Stop polling."""
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
            return f"over the limit of {self._limits.processes} processes"
        if sum(map(_memory_usage, pids)) > self._limits.memory:
            return f"over the limit of {self._limits.memory >> 20} MiB of memory"
        if self._writable_dir is not None and _disk_usage(self._writable_dir) > self._limits.disk:
            return f"over the limit of {self._limits.disk >> 20} MiB on disk"
        return ""


def _disk_usage(folder: Path) -> int:
    """Return the disk use of a folder in bytes, at least 4,096 an entry, for up to 20,000 entries."""
    total = 0
    entries = (f"{root}/{name}" for root, folders, files in os.walk(folder) for name in (*folders, *files))
    for entry in itertools.islice(entries, _MAX_ENTRIES):
        with suppress(OSError):
            total += max(os.lstat(entry).st_blocks * 512, 4096)
    return total


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
