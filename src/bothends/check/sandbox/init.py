"""The launcher of the sandbox: makes namespaces, makes the file system read-only, and becomes the program.

    python -I -S init.py FOLDER WRITABLE SIZE HOSTS NAME=LIMIT... -- COMMAND...

A program of its own that imports the standard library only, since it is started once for each program under
test. FOLDER/tmp becomes an empty file system in memory of SIZE bytes; WRITABLE is 1 if FOLDER itself may be
written to (UNIX sockets have to lie where both ends see them), "all" if all files stay as they are, and
"bounds" if bubblewrap has done the first three steps, but for FOLDER/tmp. HOSTS is a file that stands
in for /etc/hosts, or "-". In this order:

1. A user namespace (user_namespaces(7)), in which an ordinary user may make the others: mounts, processes,
   IPC.
2. /dev holds what every program needs and no disk or terminal, /run is empty (services that obey us listen
   there), and all that is mounted becomes read-only, in one call (mount_setattr(2), Linux 5.12).
3. In the process namespace we are process 1: when we end, the kernel ends all others, whatever they do.
4. There can be no more processes than the limit, whoever we are outside, and nothing in /proc can be changed.
5. The program runs as our child with no capabilities, none to be gained, under limits (setrlimit(2)).

What can't be done ends it with status 125 and a line that says which call failed.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWIPC = 0x20000, 0x10000000, 0x20000000, 0x8000000  # sched.h
MS_NOSUID, MS_NODEV = 2, 4  # sys/mount.h
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x1000, 0x4000, 1 << 18, 2
MOUNT_ATTR_RDONLY, AT_RECURSIVE, AT_FDCWD = 1, 0x8000, -100  # linux/mount.h, fcntl.h
SYS_MOUNT_SETATTR = 442  # the same number on every architecture (asm-generic/unistd.h)
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS = 1, 24, 28, 38  # linux/prctl.h
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
SECBIT_NOROOT = 0b11  # and locked: exec() as user 0 gives no capabilities (capabilities(7))
MIN_PID_MAX = 301  # the kernel keeps 300 for itself (RESERVED_PIDS, kernel/pid.c)
LAST_CAPABILITY = 63  # more than there are: dropping one that isn't there fails, and that is all
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
EXIT_SETUP_FAILED = 125  # as env(1) and timeout(1) leave when they can't start the command

_libc = ctypes.CDLL(None, use_errno=True)


def check(name: str, result: int) -> None:
    """Leave, if a call has failed."""
    if result < 0:
        sys.stderr.write(f"sandbox: {name}: {os.strerror(ctypes.get_errno())}\n")
        os._exit(EXIT_SETUP_FAILED)


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> int:
    """mount(2)."""
    return int(
        _libc.mount(source.encode(), target.encode(), fstype.encode(), ctypes.c_ulong(flags), data.encode())
    )


def set_read_only(path: str, *, on: bool, recursive: bool) -> int:
    """mount_setattr(2): attr_set, attr_clr, propagation, userns_fd."""
    attributes = struct.pack("QQQQ", MOUNT_ATTR_RDONLY * on, MOUNT_ATTR_RDONLY * (not on), 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    return int(_libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, attributes, len(attributes)))


def enter_namespaces() -> None:
    """A user namespace with our own user and group in it, and what it lets us make."""
    user, group = os.getuid(), os.getgid()
    check("unshare", _libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC))
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def mount_read_only(folder: str, mode: str, size: str, hosts: str) -> None:
    """Everything read-only, but for an empty file system in memory."""
    writable = mode == "1"
    check("mount /", mount("none", "/", "", MS_REC | MS_PRIVATE))
    if hosts != "-":
        check("bind /etc/hosts", mount(hosts, "/etc/hosts", "", MS_BIND))
    if mode == "all":
        return
    mount_minimal_dev(f"{folder}/tmp")
    if can_hide_run(folder, os.getcwd()):  # noqa: PTH109
        check("tmpfs", mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "size=4k"))
    if writable:
        check("bind", mount(folder, folder, "", MS_BIND))
    check("mount_setattr", set_read_only("/", on=True, recursive=True))
    if writable:
        check("mount_setattr", set_read_only(folder, on=False, recursive=False))
    mount_tmp(folder, size)


def mount_tmp(folder: str, size: str) -> None:
    """The empty file system in memory."""
    bounds = f"size={size},nr_inodes=8k,mode=700"
    check("tmpfs", mount("tmpfs", f"{folder}/tmp", "tmpfs", MS_NOSUID | MS_NODEV, bounds))
    os.chdir(os.getcwd())  # noqa: PTH109  (through what is mounted there now)


def can_hide_run(*needed: str) -> bool:
    """Whether there is a /run, and none of what is needed lies in it."""
    return os.path.isdir("/run") and not any(os.path.realpath(each).startswith("/run/") for each in needed)  # noqa: PTH112


def mount_minimal_dev(staging_dir: str) -> None:
    """A /dev of our own, built at `stage` and moved. A read-only mount doesn't keep devices on it from being
    written to, and what root has started would be let write to disks.
    """
    check("tmpfs", mount("tmpfs", staging_dir, "tmpfs", MS_NOSUID, "size=64k,mode=755"))
    for name in DEVICES:
        with open(f"{staging_dir}/{name}", "wb"):
            check(f"bind /dev/{name}", mount(f"/dev/{name}", f"{staging_dir}/{name}", "", MS_BIND))
    for name, place in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(f"/proc/self/{place}", f"{staging_dir}/{name}")  # noqa: PTH211
    check("bind /dev", mount(staging_dir, "/dev", "", MS_BIND | MS_REC))
    check("umount", int(_libc.umount2(staging_dir.encode(), MNT_DETACH)))


def drop_privileges(limits: list[str]) -> None:
    """No capabilities, none to gain, and the limits."""
    for capability in range(LAST_CAPABILITY):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _libc.prctl(PR_SET_SECUREBITS, SECBIT_NOROOT, 0, 0, 0)
    check("prctl", _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    for limit in limits:
        name, _, value = limit.partition("=")
        number = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(number)
        wanted = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
        resource.setrlimit(number, (wanted, wanted))


def limit_processes(limits: list[str]) -> None:
    """No more than the limit in this process namespace: pid_max is its own since Linux 6.14, and everybody's
    before. RLIMIT_NPROC binds ordinary users only, and nobody whom root has started (setrlimit(2)).
    """
    most = next((int(limit.partition("=")[2]) for limit in limits if limit.startswith("NPROC=")), 0)
    kernel = tuple(int("".join(filter(str.isdigit, part))) for part in os.uname().release.split(".")[:2])
    if not most or kernel < (6, 14):
        return
    try:
        with open("/proc/sys/kernel/pid_max", "w", encoding="ascii") as file:
            file.write(str(max(most, MIN_PID_MAX)))
    except OSError:  # what was there before stays, for example in a container whose /proc is masked
        return


def limit_processes_and_protect_proc(limits: list[str]) -> None:
    """The limit, and then /proc read-only: /proc/sys obeys whoever is user 0 outside."""
    limit_processes(limits)
    check("mount_setattr", set_read_only("/proc", on=True, recursive=True))


def exec_program(folder: str, limits: list[str], command: list[str]) -> None:
    """Be the program, from here on."""
    drop_privileges(limits)
    if os.path.isdir(f"{folder}/tmp"):  # noqa: PTH112
        os.environ.update(TMPDIR=f"{folder}/tmp", HOME=f"{folder}/tmp")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"sandbox: {command[0]}: {error.strerror}\n")
        os._exit(EXIT_SETUP_FAILED)


def run_init(folder: str, limits: list[str], command: list[str]) -> None:
    """Process 1: start the program, bury whoever has lost his parent, and leave with the program."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV)  # where that isn't allowed, the old one stays
    limit_processes_and_protect_proc(limits)
    program = os.fork()
    if program == 0:
        exec_program(folder, limits, command)
    while True:
        pid, status = os.wait()
        if pid == program:
            os._exit(exit_code(status))


def exit_code(status: int) -> int:
    """An exit status; a signal is told as 128 and its number, since process 1 can't die of one."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def main(arguments: list[str]) -> None:
    """See above."""
    at = arguments.index("--")
    (folder, how, size, hosts, *limits), command = arguments[:at], arguments[at + 1 :]
    if how == "bounds":
        mount_tmp(folder, size)
        limit_processes_and_protect_proc(limits)
        exec_program(folder, limits, command)
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    enter_namespaces()
    mount_read_only(folder, how, size, hosts)
    first = os.fork()
    if first == 0:
        run_init(folder, limits, command)
    os.close(1)  # only the program holds them now: when it has closed them, they have ended
    os.close(2)
    _, status = os.waitpid(first, 0)
    code = exit_code(status)
    if code > 128:  # end as it did
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), code - 128)
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
