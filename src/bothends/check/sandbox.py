"""The sandbox: programs that may do anything are let do little. What is allowed, and who sees to it.

| what | how |
|---|---|
| the network | the checker itself moves into a network namespace in which there is loopback only |
| files | all read-only; an empty folder in memory to write to (`confine.py`) |
| other processes | a process namespace: it sees its own only, and all end with the first |
| CPU time, size of a file, core dumps | setrlimit(2) (`confine.py`) |
| memory, processes, output of all together | looked at while it runs (`Watch`): who passes a limit is ended |

The kernel's user namespaces are enough: nobody needs to be root, nothing needs to be installed. Where they
are not allowed the sandbox is refused, and never quietly left out.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bothends.check import confine
from bothends.errors import Unavailable

_CLONE_NEWNET: Final = 0x40000000  # sched.h
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1  # netdevice(7)
_LAUNCHER: Final = (sys.executable, "-I", "-S", confine.__file__)
_LOOK: Final = 0.05  # seconds between looks


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program under test may take, with all that it starts. Bytes and seconds."""

    memory: int = 1 << 30
    processes: int = 512
    disk: int = 64 << 20
    cpu: int = 120


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Starts programs under limits. Make it with `enter`."""

    limits: Limits = Limits()

    def wrap(
        self, command: Sequence[str], folder: Path, *, writable: bool, hosts: Path | None = None
    ) -> list[str]:
        """The command that runs this one confined. `folder` is its own; `writable`: it may write there.

        `hosts` stands in for /etc/hosts.
        """
        (folder / "tmp").mkdir(exist_ok=True)
        limits = self.limits
        bounds = (f"CPU={limits.cpu}", f"FSIZE={limits.disk}", "CORE=0", f"NPROC={limits.processes}")
        place = (str(folder), str(int(writable)), str(limits.disk), str(hosts or "-"))
        return [*_LAUNCHER, *place, *bounds, "--", *command]

    @property
    def note(self) -> str:
        """What it is, for a report."""
        return (
            "each program ran in namespaces of its own (users, mounts, processes, IPC), with loopback only, "
            f"all files read-only, {self.limits.memory >> 20} MiB and {self.limits.processes} processes"
        )


def with_hosts(command: Sequence[str], folder: Path, hosts: Path) -> list[str]:
    """The command that runs this one with another /etc/hosts, and all else as it is."""
    return [*_LAUNCHER, str(folder), "all", "0", str(hosts), "--", *command]


def enter(limits: Limits | None = None) -> Sandbox:
    """Move this process into a network namespace with loopback only. Before any thread is started.

    Raises:
        Unavailable: the system doesn't allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    flags = _CLONE_NEWNET if user == 0 else _CLONE_NEWNET | confine.CLONE_NEWUSER
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
    return Sandbox(limits or Limits())


class Watch:
    """Looks at a confined program from outside, and ends it when it takes too much.

    `family` gives its processes, `ended` is called with the reason before it is ended.
    """

    def __init__(self, limits: Limits, family: Callable[[], list[int]], ended: Callable[[str], None]) -> None:
        self._limits = limits
        self._family = family
        self._ended = ended
        self._task = asyncio.ensure_future(self._look())

    def stop(self) -> None:
        """Look no more."""
        self._task.cancel()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            pids = self._family()
            if len(pids) > self._limits.processes:
                reason = f"it has more than {self._limits.processes} processes"
            elif sum(map(_resident, pids)) > self._limits.memory:
                reason = f"it takes more than {self._limits.memory >> 20} MiB of memory"
            else:
                continue
            self._ended(reason)
            for pid in pids[:2]:  # the launcher and process 1: the kernel ends the others with it
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return


def _resident(pid: int) -> int:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
