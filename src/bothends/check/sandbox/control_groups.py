"""Control groups for programs under test (cgroups(7)): memory, processes and processor time.

1. A group counts memory that belongs to no process, such as memfd_create(2) and shared memory that is not
   mapped, and kernel memory, such as the buffers of sockets and pipes. Nothing else does.
2. Version 2: a group may have children with controllers only if it has no processes itself, except the root.
   So the new groups are in the caller's own group if it can delegate, and beside it otherwise. The user must
   be allowed to write there: root is, and an ordinary user in a group that systemd delegates
   (`systemd-run --user --scope -p Delegate=yes`).
3. Version 1: the new groups are in the caller's own group of each controller. Only memory and processes are
   bounded so; processor time is polled.
4. A group without processes stays until it is removed. `find_parent` removes those that a killed checker has
   left.
"""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_PREFIX: Final = "bothends-"
_ROOT: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")
# Of version 1. To enter a group takes a grace period of RCU, which is milliseconds, for each controller.
_CONTROLLERS: Final = ("memory", "pids")
_numbers: Final = itertools.count(1)


@dataclass(frozen=True, slots=True)
class GroupParent:
    """Where groups can be created: the folder of each controller. `version`: 1 or 2."""

    version: int
    folders: dict[str, Path] = field(default_factory=dict)

    def create(self, memory: int, processes: int) -> ControlGroup:
        """Create a group. `memory`: its limit in bytes, without swap; `processes`: including threads.

        Raises:
            OSError: the kernel refuses.
        """
        name = f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
        group = ControlGroup(self.version, {each: path / name for each, path in self.folders.items()})
        try:
            group.make(memory, processes)
        except OSError:
            group.remove()
            raise
        return group


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """A group of one program and its descendants. `folders`: its folder of each controller."""

    version: int
    folders: dict[str, Path]

    def make(self, memory: int, processes: int) -> None:
        """Create the folders and set the limits. Raises OSError."""
        for folder in {*self.folders.values()}:
            folder.mkdir()
        if self.version == 2:
            self._write("memory", "memory.max", memory)
            with suppress(OSError):  # the kernel may be without swap
                self._write("memory", "memory.swap.max", 0)
            self._write("memory", "memory.oom.group", 1)
        else:
            self._write("memory", "memory.limit_in_bytes", memory)
            with suppress(OSError):
                self._write("memory", "memory.memsw.limit_in_bytes", memory)
        self._write("pids", "pids.max", processes)

    def _write(self, controller: str, name: str, value: int) -> None:
        if controller in self.folders:
            (self.folders[controller] / name).write_text(str(value), encoding="ascii")

    @property
    def entrances(self) -> list[str]:
        """The files to which a process writes 0 to enter the group."""
        return sorted(str(folder / "cgroup.procs") for folder in {*self.folders.values()})

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel has killed a process of the group at the limit of its memory."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        return self._number("memory", name, "oom_kill") > 0

    @property
    def out_of_processes(self) -> bool:
        """Whether fork(2) has failed at the limit of the processes."""
        return self._number("pids", "pids.events", "max") > 0

    @property
    def cpu_seconds(self) -> float:
        """The processor time of all its processes; 0 with version 1, where it is not counted."""
        return self._number("memory", "cpu.stat", "usage_usec") / 1e6 if self.version == 2 else 0.0

    def _number(self, controller: str, name: str, key: str) -> int:
        with suppress(OSError, ValueError, KeyError):
            for line in (self.folders[controller] / name).read_text(encoding="ascii").splitlines():
                words = line.split()
                if words[0] == key:
                    return int(words[1])
        return 0

    def remove(self) -> bool:
        """Remove the group. Returns: whether it is gone; a process may still exit in it."""
        for folder in {*self.folders.values()}:
            with suppress(OSError):
                folder.rmdir()
        return not any(folder.exists() for folder in self.folders.values())


def find_parent(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> GroupParent | None:
    """Return where this process may create groups that bound at least the memory, or None.

    `root` is the place of the file systems, `membership` the file with this process's own groups.
    """
    try:
        lines = membership.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    own: dict[str, str] = {}
    for line in lines:  # number:controllers:path
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path.lstrip("/")))
    unified = root if (root / "cgroup.controllers").exists() else None
    parent = _find_unified(unified, own[""]) if unified and "" in own else _find_separate(root, own)
    if parent is not None:
        for folder in {*parent.folders.values()}:
            _remove_abandoned(folder)
    return parent


def _find_unified(root: Path, own: str) -> GroupParent | None:
    folder = root / own
    with suppress(OSError):  # EBUSY: it has processes
        if os.access(folder, os.W_OK):
            (folder / "cgroup.subtree_control").write_text("+memory +pids +cpu", encoding="ascii")
    for candidate in (folder, folder.parent) if folder != root else (folder,):
        try:
            enabled = (candidate / "cgroup.subtree_control").read_text(encoding="ascii").split()
        except OSError:
            continue
        writable = all(os.access(path, os.W_OK) for path in (candidate, candidate / "cgroup.procs"))
        if {"memory", "pids"} <= {*enabled} and writable:
            return GroupParent(2, dict.fromkeys(("memory", "pids"), candidate))
    return None


def _find_separate(root: Path, own: dict[str, str]) -> GroupParent | None:
    folders: dict[str, Path] = {name: root / name / own[name] for name in _CONTROLLERS if name in own}
    usable = {name: path for name, path in folders.items() if os.access(path, os.W_OK) and path.is_dir()}
    return GroupParent(1, usable) if {"memory", "pids"} <= usable.keys() else None


def _remove_abandoned(parent: Path) -> None:
    """Remove the groups of checkers that have been killed: empty ones, whose creator is gone."""
    for folder in parent.glob(f"{_PREFIX}*-*"):
        creator = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if creator.isdigit() and not Path(f"/proc/{creator}").exists():
            with suppress(OSError):
                folder.rmdir()
