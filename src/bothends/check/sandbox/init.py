"""The init process of the sandbox: creates namespaces and an empty root, and runs the program in it.

This is a separate program that imports little of the standard library, because it is started once for each
program under test. `launcher.py` starts it: it writes this module's code, compiled already, and the plan to a
descriptor, in the format of `marshal`. `Sandbox.prepare` makes the plan. The steps, in this order:

1. Enter the control groups, if there are any, so that all later processes are in them.
2. Clone process 1 of new namespaces: users, mounts, processes, IPC, host name, control groups. When process 1
   exits, the kernel kills all other processes in them. Of root, two users are mapped: root, for these steps,
   and 65534, for the program. Any other user appears as 65534 inside (user_namespaces(7)).
3. Build a root in memory: the toolchain, the folders of the program, a small /dev and /etc, and one bounded
   file system in memory for everything that is written. Then leave the old root (pivot_root(2)).
4. Run the program as a child: as user 65534, without capabilities, unable to gain any, under limits
   (setrlimit(2)) and the seccomp filter of the plan. With a gate it waits there first (`Sandbox.prepare`).
5. After a build, process 1 kills what is left, and copies the built folder back to the disk.

If a step fails, it exits with status 125 and a line that names the failed call.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # the module `typing` takes 20 ms to import
    from typing import Any, NoReturn

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x20000, 0x2000000, 0x4000000  # linux/sched.h
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x8000000, 0x10000000, 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8  # sys/mount.h
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x1000, 0x4000, 1 << 18, 2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_IDMAP = 1, 2, 0x100000  # linux/mount.h
AT_FDCWD, AT_RECURSIVE, AT_EMPTY_PATH, OPEN_TREE_CLONE, O_CLOEXEC = -100, 0x8000, 0x1000, 1, 0x80000
MOVE_MOUNT_F_EMPTY_PATH = 4
# The same numbers on every architecture (asm-generic/unistd.h).
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442
# Different ones: clone, pivot_root, keyctl.
SYSTEM_CALLS = {"x86_64": (56, 155, 250), "aarch64": (220, 41, 219)}
KEYCTL_JOIN_SESSION_KEYRING = 1
SIGCHLD, SIGKILL = 17, 9  # signal(7); the module `signal` takes milliseconds to import
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP = 1, 4, 22  # linux/prctl.h
PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS = 24, 28, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
SECCOMP_MODE_FILTER = 2
SECBIT_NOROOT = 0b11  # and locked: exec() as user 0 gives no capabilities (capabilities(7))
MIN_PID_MAX = 301  # the kernel reserves 300 process ids (RESERVED_PIDS, kernel/pid.c)
LAST_CAPABILITY = 63  # above the last capability, because dropping an unknown one fails without effect
UNPRIVILEGED = 65534  # the user and group of a program
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
HIDDEN_IN_PROC = ("keys", "key-users", "kcore", "timer_list", "sched_debug", "latency_stats")
EXIT_SETUP_FAILED = 125  # the status of env(1) and timeout(1) if they fail themselves
MAX_DEPTH = 64  # folders below each other that a build may leave
READ_ONLY, PREPARED, WRITABLE = "read-only", "prepared", "writable"  # kinds of folders, see `Sandbox.prepare`
STORE = ".store"  # where the file system in memory is mounted until its parts have their places

_libc = ctypes.CDLL(None, use_errno=True)


def fail(name: str, reason: str) -> NoReturn:
    """Exit with a line on standard error."""
    sys.stderr.write(f"sandbox: {name}: {reason}\n")
    sys.stderr.flush()
    os._exit(EXIT_SETUP_FAILED)


def check(name: str, result: int) -> int:
    """Exit if a call has failed. Returns: its result."""
    if result < 0:
        fail(name, os.strerror(ctypes.get_errno()))
    return result


def system_call(number: int, *arguments: Any) -> int:
    """Call a system call that the C library may lack. Integers are passed as long."""
    return int(_libc.syscall(number, *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)))


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> int:
    """Call mount(2)."""
    return int(
        _libc.mount(
            os.fsencode(source), os.fsencode(target), fstype.encode(), ctypes.c_ulong(flags), data.encode()
        )
    )


def unmount(path: str) -> int:
    """Call umount2(2) with MNT_DETACH."""
    return int(_libc.umount2(os.fsencode(path), MNT_DETACH))


def set_attributes(
    descriptor: int, path: str, flags: int, *, on: int = 0, off: int = 0, users: int = 0
) -> int:
    """Call mount_setattr(2) with attr_set, attr_clr, propagation and userns_fd."""
    attributes = struct.pack("QQQQ", on, off, 0, users)
    return system_call(SYS_MOUNT_SETATTR, descriptor, os.fsencode(path), flags, attributes, len(attributes))


def clone(flags: int) -> int:
    """Call clone(2) as fork(2), with new namespaces."""
    sys.stderr.flush()
    return check("clone", system_call(SYSTEM_CALLS[os.uname().machine][0], flags | SIGCHLD, 0, 0, 0, 0))


def write(path: str, text: str) -> None:
    """Write to a file of the kernel, or exit."""
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        fail(path, error.strerror or "")


def map_users(pid: int, user: int, group: int) -> None:
    """Map the users of process 1: root and 65534, or this user as 65534."""
    if user == 0:
        lines = {
            "uid_map": f"0 0 1\n{UNPRIVILEGED} {UNPRIVILEGED} 1\n",
            "gid_map": f"0 0 1\n{UNPRIVILEGED} {UNPRIVILEGED} 1\n",
        }
    else:  # the kernel demands to deny setgroups(2) (user_namespaces(7))
        lines = {
            "setgroups": "deny",
            "uid_map": f"{UNPRIVILEGED} {user} 1\n",
            "gid_map": f"{UNPRIVILEGED} {group} 1\n",
        }
    for name, text in lines.items():
        write(f"/proc/{pid}/{name}", text)


def mapped_clones(folders: list[tuple[str, str]], users: int) -> dict[str, int]:
    """Clone the mounts of root's folders, so that in them root's files are the program's (mount_setattr(2)).

    `users` is a user namespace that maps root to 65534. Returns: a descriptor for each target for whose file
    system that is possible.
    """
    found: dict[str, int] = {}
    for source, target in folders:
        descriptor = system_call(SYS_OPEN_TREE, AT_FDCWD, os.fsencode(source), OPEN_TREE_CLONE | O_CLOEXEC)
        if descriptor < 0:
            continue
        if set_attributes(descriptor, "", AT_EMPTY_PATH, on=MOUNT_ATTR_IDMAP, users=users) < 0:
            os.close(descriptor)
        else:
            found[target] = descriptor
    os.close(users)
    return found


# Files ---------------------------------------------------------------------------------------------------


class Budget:
    """How many bytes and files may still be copied."""

    def __init__(self, size: int, files: int) -> None:
        self.size = size
        self.files = files

    def take(self, size: int, files: int = 0) -> None:
        """Use a part. Raises OSError (EFBIG)."""
        self.size -= size
        self.files -= files
        if self.size < 0 or self.files < 0:
            raise OSError(27, "too many files, or files too large")


def copy_folder(source: int, target: int, budget: Budget, owner: int = -1, depth: int = 0) -> None:
    """Copy files, folders and symbolic links from one folder to another; descriptors of both are given.

    Sparse files stay sparse. Files get mode 644 or 755, and keep their modification time, which make(1)
    reads.

    Raises:
        OSError: a file cannot be copied, or the budget is exceeded.
    """
    if depth > MAX_DEPTH:
        raise OSError(40, f"more than {MAX_DEPTH} folders below each other")
    with os.scandir(source) as entries:
        names = [(each.name, each.stat(follow_symlinks=False)) for each in entries]
    for name, found in names:
        kind = found.st_mode & 0o170000  # inode(7)
        budget.take(0, 1)
        if kind == 0o040000:
            os.mkdir(name, 0o755, dir_fd=target)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=source)
            copied = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=target)
            copy_folder(inner, copied, budget, owner, depth + 1)
            os.close(inner)
            os.close(copied)
        elif kind == 0o120000:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif kind == 0o100000:
            copy_file(source, target, name, found, budget)
        else:
            continue
        if owner >= 0:
            os.chown(name, owner, owner, dir_fd=target, follow_symlinks=False)
        times = (found.st_atime_ns, found.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def copy_file(source: int, target: int, name: str, found: os.stat_result, budget: Budget) -> None:
    """Copy the data of a file, without its holes. Raises OSError."""
    mode = 0o755 if found.st_mode & 0o100 else 0o644
    reader = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=source)
    writer = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode, dir_fd=target)
    try:
        end = 0
        while end < found.st_size:
            try:
                start = os.lseek(reader, end, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                break
            end = os.lseek(reader, start, os.SEEK_HOLE)
            budget.take(end - start)
            os.lseek(writer, start, os.SEEK_SET)
            while start < end:
                sent = os.sendfile(writer, reader, start, min(end - start, 1 << 20))
                if sent == 0:
                    break
                start += sent
        os.ftruncate(writer, found.st_size)
        os.fchmod(writer, mode)
    finally:
        os.close(reader)
        os.close(writer)


def empty_folder(folder: int) -> None:
    """Remove everything in a folder, a descriptor of which is given. Raises OSError."""
    with os.scandir(folder) as entries:
        names = [(each.name, each.is_dir(follow_symlinks=False)) for each in entries]
    for name, is_folder in names:
        if is_folder:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            empty_folder(inner)
            os.close(inner)
            os.rmdir(name, dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)


# The root ------------------------------------------------------------------------------------------------


def make_place(target: str, *, is_folder: bool) -> None:
    """Create a folder or an empty file to mount on, and the folders above it."""
    os.makedirs(target if is_folder else os.path.dirname(target), mode=0o755, exist_ok=True)  # noqa: PTH103, PTH120
    if not is_folder and not os.path.lexists(target):
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))


def bind(source: str, target: str) -> None:
    """Make a file or folder visible at another place as well."""
    make_place(target, is_folder=os.path.isdir(source))  # noqa: PTH112
    check(f"bind {source}", mount(source, target, "", MS_BIND | MS_REC))


class Root:
    """The new root, below `base`. `owner`: the program's user in the namespace, or -1 if it is this one."""

    def __init__(self, base: str, plan: dict[str, Any], owner: int) -> None:
        self.base = base
        self.plan = plan
        self.owner = owner
        self.build_source = -1
        self.writable: list[str] = []

    def build(self, mapped: dict[str, int]) -> None:
        """Mount everything below `base`, and make it the root. `mapped`: see `mapped_clones`."""
        base, plan = self.base, self.plan
        check("mount /", mount("none", "/", "", MS_REC | MS_PRIVATE))
        # Opened before the new root hides what is in `base`.
        own = [(os.open(source, os.O_PATH), target, kind) for source, target, kind in plan["own"]]
        if plan["build"]:
            self.build_source = os.open(plan["build"], os.O_RDONLY | os.O_DIRECTORY)
        check("tmpfs", mount("tmpfs", base, "tmpfs", MS_NOSUID, "size=4m,nr_inodes=4k,mode=755"))
        for source in plan["toolchain"]:
            bind(source, base + source)
        for target, path in plan["links"]:
            os.makedirs(os.path.dirname(base + path), mode=0o755, exist_ok=True)  # noqa: PTH103, PTH120
            os.symlink(target, base + path)  # noqa: PTH211
        for path, text in plan["files"]:
            make_place(base + path, is_folder=False)
            with open(base + path, "w", encoding="utf-8") as file:
                file.write(text)
        for path in ("/run", "/var"):
            os.makedirs(base + path, mode=0o755, exist_ok=True)  # noqa: PTH103
        self.mount_store()
        for descriptor, target, kind in own:
            self.mount_own(descriptor, target, mapped.get(target, -1), kind)
            os.close(descriptor)
        for path in plan["hidden"]:
            if os.path.isdir(base + path):  # noqa: PTH112
                check("tmpfs", mount("tmpfs", base + path, "tmpfs", MS_NOSUID, "size=4k,mode=0"))
        self.make_dev()
        self.mount_proc()
        check("umount", unmount(f"{base}/{STORE}"))
        os.rmdir(f"{base}/{STORE}")  # noqa: PTH106
        on = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID
        check("mount_setattr", set_attributes(AT_FDCWD, base, AT_RECURSIVE, on=on))
        for path in self.writable:
            check("mount_setattr", set_attributes(AT_FDCWD, path, 0, off=MOUNT_ATTR_RDONLY))
        os.chdir(base)
        check("pivot_root", system_call(SYSTEM_CALLS[os.uname().machine][1], b".", b"."))
        check("umount", unmount("."))
        os.chdir("/")

    def mount_store(self) -> None:
        """Mount the file system in memory, for /tmp and the folder of a build."""
        store, plan = f"{self.base}/{STORE}", self.plan
        os.mkdir(store, 0o700)  # noqa: PTH102
        options = f"size={plan['disk']},nr_inodes={plan['files_limit']},mode=755"
        check("tmpfs", mount("tmpfs", store, "tmpfs", MS_NOSUID | MS_NODEV, options))
        os.mkdir(f"{store}/tmp")  # noqa: PTH102
        os.chmod(f"{store}/tmp", 0o1777)  # noqa: PTH101
        bind(f"{store}/tmp", f"{self.base}/tmp")
        self.writable.append(f"{self.base}/tmp")
        if self.build_source >= 0:
            self.mount_copy(self.build_source, plan["build"])
            self.writable.append(self.base + plan["build"])

    def mount_copy(self, source: int, target: str) -> None:
        """Copy a folder into the file system in memory, as the program's, and mount it."""
        copy = f"{self.base}/{STORE}/{len(os.listdir(f'{self.base}/{STORE}'))}"  # noqa: PTH208
        os.mkdir(copy, 0o755)  # noqa: PTH102
        descriptor = os.open(copy, os.O_RDONLY | os.O_DIRECTORY)
        try:
            copy_folder(source, descriptor, self.budget(), self.owner)
        except OSError as error:
            fail(f"copy {target}", error.strerror or "")
        if self.owner >= 0:
            os.fchown(descriptor, self.owner, self.owner)
        os.close(descriptor)
        bind(copy, self.base + target)

    def budget(self) -> Budget:
        """Return how much may be copied: as much as the file system in memory holds."""
        return Budget(self.plan["disk"], self.plan["files_limit"])

    def mount_own(self, descriptor: int, target: str, mapped: int, kind: str) -> None:
        """Mount a file or folder of the program. `kind`: see `Sandbox.prepare`."""
        place, source = self.base + target, f"/proc/self/fd/{descriptor}"
        make_place(place, is_folder=os.path.isdir(source))  # noqa: PTH112
        if mapped >= 0:
            check(f"mount {target}", system_call(
                SYS_MOVE_MOUNT, mapped, b"", AT_FDCWD, os.fsencode(place), MOVE_MOUNT_F_EMPTY_PATH
            ))  # fmt: skip
            os.close(mapped)
        elif self.owner >= 0 and kind == READ_ONLY and os.path.isdir(source):  # noqa: PTH112
            folder = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
            self.mount_copy(folder, target)
            os.close(folder)
        else:
            # The new root is mounted on the folder of this start, and would be bound along with it.
            flags = MS_BIND | MS_REC if kind == READ_ONLY else MS_BIND
            check(f"bind {target}", mount(source, place, "", flags))
        if kind == WRITABLE:
            self.writable.append(place)

    def make_dev(self) -> None:
        """Make a /dev without disks and terminals. Shared memory (shm_open(3)) is in /tmp."""
        dev = f"{self.base}/dev"
        os.mkdir(dev, 0o755)  # noqa: PTH102
        for name in DEVICES:
            bind(f"/dev/{name}", f"{dev}/{name}")
        links = (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"))
        for name, target in (*((name, f"/proc/self/{target}") for name, target in links), ("shm", "/tmp")):
            os.symlink(target, f"{dev}/{name}")  # noqa: PTH211

    def mount_proc(self) -> None:
        """Mount the /proc of this process namespace, limit the processes, and hide what is the machine's."""
        proc = f"{self.base}/proc"
        os.mkdir(proc, 0o755)  # noqa: PTH102
        check(
            "mount /proc (a container may forbid it)",
            mount("proc", proc, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC),
        )
        limit_processes(proc, self.plan["processes"])
        for name in HIDDEN_IN_PROC:
            if os.path.exists(f"{proc}/{name}"):  # noqa: PTH110
                check(f"bind {name}", mount("/dev/null", f"{proc}/{name}", "", MS_BIND))

    def copy_build_back(self) -> None:
        """Copy the folder of a build from the memory to the disk. Processes that could change it are gone."""
        built = os.open(self.plan["build"], os.O_RDONLY | os.O_DIRECTORY)
        try:
            empty_folder(self.build_source)
            copy_folder(built, self.build_source, self.budget())
        except (OSError, RecursionError) as error:
            fail("copy the built files", getattr(error, "strerror", "") or str(error))


def limit_processes(proc: str, limit: int) -> None:
    """Set pid_max of this process namespace, which Linux 6.14 made per namespace.

    RLIMIT_NPROC does not limit root (setrlimit(2)), and counts all processes of a user.
    """
    kernel = tuple(int("".join(filter(str.isdigit, part))) for part in os.uname().release.split(".")[:2])
    if kernel < (6, 14):
        return
    try:
        with open(f"{proc}/sys/kernel/pid_max", "w", encoding="ascii") as file:
            file.write(str(max(limit, MIN_PID_MAX)))
    except OSError:  # the old value stays
        return


# The program ---------------------------------------------------------------------------------------------


def drop_privileges(owner: int, limits: list[tuple[int, int]], program: bytes) -> None:
    """Become the user `owner` unless it is -1, drop all capabilities, and set the limits and the filter."""
    for number, value in limits:
        _, hard = resource.getrlimit(number)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (allowed, allowed))
    for capability in range(LAST_CAPABILITY):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    check("prctl", _libc.prctl(PR_SET_SECUREBITS, SECBIT_NOROOT, 0, 0, 0))
    if owner >= 0:
        os.setgroups([])
        os.setresgid(owner, owner, owner)
        os.setresuid(owner, owner, owner)
    check("prctl", _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    steps = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(steps))  # struct sock_fprog
    check("seccomp", _libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0))


def wait_at_gate(gate: int) -> None:
    """Say that everything is set up, and wait until the program may start: a tracer attaches in between."""
    # A tracer of the same user attaches to dumpable processes only (ptrace(2)). Nothing else runs here yet.
    _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    os.write(gate, b"1")  # the kernel adds the process id, as the reader's namespace knows it (unix(7))
    if os.read(gate, 1) != b"1":
        os._exit(EXIT_SETUP_FAILED)
    os.close(gate)


def exec_program(plan: dict[str, Any], owner: int) -> NoReturn:
    """Replace this process by the program."""
    try:
        os.chdir(plan["cwd"])
    except OSError:
        os.chdir("/tmp")
    drop_privileges(owner, plan["limits"], plan["filter"])
    if plan["gate"] >= 0:
        wait_at_gate(plan["gate"])
    command = plan["command"]
    try:
        os.execvpe(command[0], command, plan["environment"])
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", "") or str(error)
        fail(command[0], f"{reason}; the sandbox shows only the toolchain and the program's own folder")


def run_init(plan: dict[str, Any], ready: int, mapped: dict[str, int]) -> NoReturn:
    """Run as process 1: build the root, run the program, reap orphans, and exit with the program's status."""
    _libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if os.read(ready, 1) != b"1":  # the users are mapped
        os._exit(EXIT_SETUP_FAILED)
    os.close(ready)
    owner = UNPRIVILEGED if os.getuid() == 0 else -1
    # The caller's session keyring is left, so that its keys are not even possessed.
    system_call(SYSTEM_CALLS[os.uname().machine][2], KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
    _libc.sethostname(b"localhost", 9)
    os.umask(0o022)
    root = Root(plan["base"], plan, owner)
    root.build(mapped)
    _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # the program cannot look into this process (proc(5))
    program = os.fork()
    if program == 0:
        if root.build_source >= 0:
            os.close(root.build_source)
        exec_program(plan, owner)
    os.close(1)  # so that the reader gets EOF when the program closes its output
    if root.build_source < 0:
        os.close(2)
    while True:
        pid, status = os.wait()
        if pid == program:
            break
    if root.build_source >= 0:
        kill_all()
        root.copy_build_back()
    os._exit(exit_code(status))


def kill_all() -> None:
    """Kill all other processes of the namespace, and wait for them."""
    try:
        os.kill(-1, SIGKILL)
        while True:
            os.wait()
    except (ProcessLookupError, ChildProcessError):
        return


def exit_code(status: int) -> int:
    """Return an exit status: 128 plus the number for a signal, because process 1 cannot kill itself."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def replace_hosts(plan: dict[str, Any]) -> NoReturn:
    """Run the program unconfined, with another /etc/hosts: only mounts are private."""
    user, group = os.getuid(), os.getgid()
    if _libc.unshare(CLONE_NEWNS) < 0:
        check("unshare", _libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{user} {user} 1\n")
        write("/proc/self/gid_map", f"{group} {group} 1\n")
    check("mount /", mount("none", "/", "", MS_REC | MS_PRIVATE))
    check("bind /etc/hosts", mount(plan["hosts"], "/etc/hosts", "", MS_BIND))
    try:
        os.execvp(plan["command"][0], plan["command"])
    except OSError as error:
        fail(plan["command"][0], error.strerror or "")


def main(plan: dict[str, Any]) -> NoReturn:
    """Run the steps above."""
    if "hosts" in plan:
        replace_hosts(plan)
    _libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    for path in plan["groups"]:
        write(path, "0")
    user, group = os.getuid(), os.getgid()
    read_only = [(source, target) for source, target, kind in plan["own"] if kind == READ_ONLY]
    mapped = mapped_clones(read_only, plan["users"]) if plan["users"] >= 0 else {}
    ready_read, ready_write = os.pipe()
    flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
    first = clone(flags)
    if first == 0:
        os.close(ready_write)
        run_init(plan, ready_read, mapped)
    map_users(first, user, group)
    os.write(ready_write, b"1")
    os.close(1)
    os.close(2)
    _, status = os.waitpid(first, 0)
    code = exit_code(status)
    if code > 128:  # exit by the same signal
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), code - 128)
    os._exit(code)
