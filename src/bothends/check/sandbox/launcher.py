"""The sandbox: confine programs under test that are not trusted.

| resource | restriction |
|---|---|
| network | the checker itself moves into a network namespace with only a loopback interface |
| files | an empty root with the toolchain and the program's own folder, read-only (`visible.py`, `init.py`) |
| written files | one file system in memory, bounded in size and number of files |
| other processes | a process namespace: its own processes only, and all exit with the first |
| users | the program is user 65534, without capabilities |
| system calls | a seccomp filter (`seccomp.py`) |
| memory, processes, processor time | a control group (`control_groups.py`), and polled (`monitor.py`) |
| CPU time and file size of each process, core dumps | setrlimit(2) |

It needs user namespaces, but not root, and no other program. If the system does not allow them, `enter`
raises an error: no program runs unconfined instead.
"""

from __future__ import annotations

import ctypes
import functools
import marshal
import os
import platform
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any, Final

from bothends.check.sandbox import init, seccomp
from bothends.check.sandbox.control_groups import ControlGroup, GroupParent, find_parent
from bothends.check.sandbox.visible import Toolchain, find_toolchain, outermost, own_paths, resolve_program
from bothends.errors import SystemCallFailed, Unavailable
from bothends.osutil.namespaces import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER, bring_loopback_up, unshare
from bothends.osutil.scratch import make_scratch_folder, remove_scratch_folder, scratch_folder

_MS_SLAVE: Final = 1 << 19  # sys/mount.h
_SOCKET_FOLDER_SIZE: Final = 8 << 20  # bytes: for a UNIX socket, and the contract's files
_HINT: Final = "omit --sandbox for programs that you trust"
_INHERITED: Final = ("LD_LIBRARY_PATH",)  # Python itself may need it to start


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """The limits of one program under test and its descendants, in bytes and seconds."""

    memory: int = 1 << 30
    processes: int = 2048  # including threads: a thread for each of 1,100 clients is not hostile
    disk: int = 64 << 20
    files: int = 8192
    cpu: int = 120


@dataclass(frozen=True, slots=True)
class SandboxedStart:
    """How to start a program: `command` with `environment` and the descriptors `inherited`.

    Of these, `plan` is to be closed afterwards, unless it is -1. `group` is the control group, to be removed
    when all processes have exited.
    """

    command: list[str]
    environment: dict[str, str]
    plan: int = -1
    inherited: tuple[int, ...] = ()
    group: ControlGroup | None = None


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox, created by `enter`.

    `folder` is the program's own folder, if that is known without its command. `users` is a descriptor of a
    user namespace that maps root to 65534, if this is root.
    """

    toolchain: Toolchain
    limits: SandboxLimits = SandboxLimits()
    groups: GroupParent | None = None
    folder: Path | None = None
    filter: bytes = field(default=b"", repr=False)
    users: int = -1

    def prepare(
        self,
        command: Sequence[str],
        scratch_dir: Path,
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] = {},
        hosts_file: Path | None = None,
        build: bool = False,
        gate: int = -1,
        descriptors: tuple[int, ...] = (),
    ) -> SandboxedStart:
        """Return how to start a program in the sandbox.

        Args:
            scratch_dir: a folder for this start only, which the program sees.
            cwd: the working directory, if not the checker's.
            environment: the program's environment variables, besides those of the sandbox.
            hosts_file: a replacement for /etc/hosts.
            build: whether the program may change `scratch_dir`. It works on a copy in memory, which replaces
                the folder when it exits.
            gate: one end of a pair of UNIX sockets. Immediately before the program is executed, its process
                writes a byte there and waits for the byte "1". So a tracer outside of the sandbox, which the
                program does not see, sees the program's calls and none of the set-up; -1: without.
            descriptors: further descriptors that the program inherits.

        Raises:
            SystemCallFailed: its control group cannot be created.
        """
        command = [resolve_program(command[0]), *command[1:]]
        folder = cwd or Path.cwd()
        scratch = str(scratch_dir)
        if build:
            own = []
        else:
            shown = [str(self.folder)] if self.folder is not None else own_paths(command, folder)
            kind = init.WRITABLE if os.path.ismount(scratch) else init.PREPARED
            own = [(os.path.realpath(each), each, init.READ_ONLY) for each in _outside(shown, scratch)]
            own.append((scratch, scratch, kind))
            if os.getuid() == 0:
                _give_away(scratch)
        group = self._create_group()
        all_variables = {
            "PATH": self.toolchain.search_path, "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8",
            "ASAN_OPTIONS": "detect_leaks=0",  # LeakSanitizer needs ptrace(2)
            **self.toolchain.variables, **environment,
        }  # fmt: skip
        files = dict(self.toolchain.files)
        if hosts_file is not None:
            files["/etc/hosts"] = hosts_file.read_text(encoding="utf-8")
        limits = self.limits
        plan: dict[str, Any] = {
            "base": scratch, "toolchain": list(self.toolchain.paths), "links": list(self.toolchain.links),
            "files": list(files.items()), "hidden": list(self.toolchain.hidden), "own": own,
            "build": scratch if build else "", "disk": limits.disk, "files_limit": limits.files,
            "processes": limits.processes, "users": self.users, "filter": self.filter, "gate": gate,
            "groups": group.entrances if group else [],
            "cwd": str(folder), "command": command, "environment": all_variables,
            "limits": [
                (resource.RLIMIT_CPU, limits.cpu), (resource.RLIMIT_FSIZE, limits.disk),
                (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NPROC, limits.processes),
            ],
        }  # fmt: skip
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        command, descriptor = _launch(plan)
        passed = (descriptor, *(each for each in (self.users, gate) if each >= 0), *descriptors)
        return SandboxedStart(command, inherited, descriptor, passed, group)

    def _create_group(self) -> ControlGroup | None:
        if self.groups is None:
            return None
        try:
            return self.groups.create(self.limits.memory, self.limits.processes)
        except OSError as error:
            raise SystemCallFailed("create", "a control group", error.errno or 0) from error

    @property
    def note(self) -> str:
        """A description for a report."""
        bounds = f"at most {self.limits.memory >> 20} MiB and {self.limits.processes} processes"
        by = (
            f"by control groups (version {self.groups.version})"
            if self.groups
            else "polled, because no control group is delegated; no memfd_create() and System V IPC"
        )
        return (
            "each program ran confined in namespaces: loopback only, only the toolchain and its own folder, "
            f"read-only, only its own processes, as user 65534, {bounds}, {by}"
        )


# Loads the code of `init.py` and the plan, and runs it. A script would be compiled again at each start.
_LOADER: Final = (
    "import marshal, sys\n"
    "with open(int(sys.argv[1]), 'rb') as file: code, plan = marshal.load(file)\n"
    "names = {'__name__': 'init'}\n"
    "exec(code, names)\n"
    "names['main'](plan)"
)


def _launch(plan: dict[str, Any]) -> tuple[list[str], int]:
    """Return a command that runs `init.py` with a plan, and the descriptor that it inherits for this."""
    descriptor = os.memfd_create("plan", os.MFD_CLOEXEC)
    with open(os.dup(descriptor), "wb") as file:
        marshal.dump((_init_code(), plan), file)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return [sys.executable, "-I", "-S", "-c", _LOADER, str(descriptor)], descriptor


def preload() -> None:
    """Find out what all sandboxes share, so that processes that are forked later need not."""
    _toolchain()
    _init_code()


@functools.cache
def _toolchain() -> Toolchain:
    return find_toolchain()


@functools.cache
def _init_code() -> CodeType:
    return compile(Path(init.__file__).read_text(encoding="utf-8"), "init.py", "exec")


def with_hosts_file(command: Sequence[str], hosts_file: Path) -> SandboxedStart:
    """Return how to start a program with another /etc/hosts, otherwise unconfined."""
    launch, descriptor = _launch({"hosts": str(hosts_file), "command": list(command)})
    return SandboxedStart(launch, dict(os.environ), descriptor, (descriptor,))


def _outside(paths: Sequence[str], scratch: str) -> list[str]:
    return [each for each in outermost(paths) if each != scratch and not each.startswith(f"{scratch}/")]


def _give_away(folder: str) -> None:
    """Make a folder and its contents the property of the user that root's programs run as."""
    for path in (Path(folder), *Path(folder).rglob("*")):
        os.chown(path, init.UNPRIVILEGED, init.UNPRIVILEGED, follow_symlinks=False)


def make_scratch_dir(sandbox: Sandbox | None, *, writable: bool) -> Path:
    """Create a folder for one start of a program. Remove it with `remove_scratch_dir`.

    With `writable`, a program in the sandbox may write to it: UNIX sockets must be visible to both peers.
    Then it is a bounded file system in memory, which only this process and its programs see.
    """
    folder = make_scratch_folder("check")
    if sandbox is not None and writable:
        options = f"size={_SOCKET_FOLDER_SIZE},nr_inodes=1k,mode=700"
        if init.mount("tmpfs", str(folder), "tmpfs", init.MS_NOSUID | init.MS_NODEV, options) < 0:
            number = ctypes.get_errno()
            remove_scratch_folder(folder)
            raise SystemCallFailed("mount", str(folder), number)
    return folder


def remove_scratch_dir(folder: Path) -> None:
    """Remove a folder that `make_scratch_dir` has created."""
    if os.path.ismount(folder):
        init.unmount(str(folder))
    remove_scratch_folder(folder)


def enter(
    limits: SandboxLimits | None = None, folder: Path | None = None, *, is_proven: bool = False
) -> Sandbox:
    """Move this process into a network namespace with only loopback, and return a sandbox that works.

    Call it before any thread is started, because unshare(2) with a user namespace requires a single thread.

    Args:
        folder: the program's own folder; by default, that of the files that its command names.
        is_proven: whether a program has run in such a sandbox already, so that none needs to be tried.

    Raises:
        Unavailable: the system does not allow the namespaces, or mounts in them.
    """
    if platform.machine() not in seccomp.SUPPORTED:
        reason = f"there is no list of system calls for {platform.machine()}"
        raise Unavailable("create", "a sandbox", reason=reason, hint=_HINT)
    groups = find_parent()
    users = _user_map() if os.getuid() == 0 else -1
    _unshare()
    rules = seccomp.build_filter(memory_is_counted=groups is not None)
    sandbox = Sandbox(
        _toolchain(), limits or SandboxLimits(), groups, folder and folder.resolve(), rules, users
    )
    if not is_proven and (error := _probe_error(sandbox)):
        raise Unavailable("create", "a sandbox", reason=error, hint=_HINT)
    return sandbox


def _probe_error(sandbox: Sandbox) -> str:
    """Return the error of a program that does nothing in the sandbox, or ""."""
    with scratch_folder("check") as folder:
        start = sandbox.prepare(["true"], folder)
        try:
            done = subprocess.run(
                start.command, env=start.environment, pass_fds=start.inherited, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        finally:
            os.close(start.plan)
            if start.group is not None:
                start.group.remove()
        return (done.stderr.strip() or f"status {done.returncode}") if done.returncode else ""


def _user_map() -> int:
    """Return a descriptor of a user namespace that maps root to 65534, or -1 if that is not allowed."""
    ready_read, ready_write = os.pipe()
    holder = os.fork()
    if holder == 0:  # a process only to have its user namespace
        try:
            unshare(CLONE_NEWUSER)
            os.write(ready_write, b"1")
            signal.pause()  # until it is killed, below
        finally:
            os._exit(1)
    try:
        os.close(ready_write)
        if os.read(ready_read, 1):
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{holder}/{name}").write_text(f"0 {init.UNPRIVILEGED} 1", encoding="ascii")
            return os.open(f"/proc/{holder}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        pass
    finally:
        os.close(ready_read)
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    return -1


def _unshare() -> None:
    """Enter a network namespace with only loopback, and a mount namespace for the folders of UNIX sockets."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    flags = CLONE_NEWNET | CLONE_NEWNS | (CLONE_NEWUSER if user != 0 else 0)
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
    if init.mount("none", "/", "", init.MS_REC | _MS_SLAVE) < 0:  # mounts stay in here
        raise Unavailable("mount", "/", ctypes.get_errno(), _HINT)
    bring_loopback_up()
