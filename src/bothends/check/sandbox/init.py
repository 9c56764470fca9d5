"""The init process of the sandbox: creates namespaces, makes the file system read-only, and runs the program.

    python -I -S init.py FOLDER MODE SIZE HOSTS NAME=LIMIT... -- COMMAND...

This is a separate program that imports only the standard library, because it is started once for each program
under test. FOLDER/tmp becomes an empty file system in memory of SIZE bytes. MODE is 1 if FOLDER itself is
writable (UNIX sockets must be visible to both peers) and 0 if it is not, "all" if all files stay as they are,
and "bounds" if bubblewrap has done the first three steps, except for FOLDER/tmp. HOSTS is a replacement for
/etc/hosts, or "-". The steps, in this order:

1. Enter a user namespace (user_namespaces(7)), in which an ordinary user may create the others: mounts,
   processes, IPC.
2. Mount a /dev without disks and terminals and an empty /run (services that obey this user listen there), and
   make all mounts read-only, in one call (mount_setattr(2), Linux 5.12).
3. Become process 1 of the process namespace: when it exits, the kernel kills all other processes in it.
4. Limit the number of processes, even for root, and make /proc read-only.
5. Run the program as a child without capabilities, unable to gain any, under limits (setrlimit(2)).

If a step fails, it exits with status 125 and a line that names the failed call.
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
MIN_PID_MAX = 301  # the kernel reserves 300 process ids (RESERVED_PIDS, kernel/pid.c)
LAST_CAPABILITY = 63  # above the last capability, because dropping an unknown one fails without effect
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
EXIT_SETUP_FAILED = 125  # the status of env(1) and timeout(1) if they fail themselves

_libc = ctypes.CDLL(None, use_errno=True)


def check(name: str, result: int) -> None:
    """Exit if a call has failed."""
    if result < 0:
        sys.stderr.write(f"sandbox: {name}: {os.strerror(ctypes.get_errno())}\n")
        os._exit(EXIT_SETUP_FAILED)


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> int:
    """Call mount(2)."""
    return int(
        _libc.mount(source.encode(), target.encode(), fstype.encode(), ctypes.c_ulong(flags), data.encode())
    )


def set_read_only(path: str, *, on: bool, recursive: bool) -> int:
    """Call mount_setattr(2) with attr_set, attr_clr, propagation and userns_fd."""
    attributes = struct.pack("QQQQ", MOUNT_ATTR_RDONLY * on, MOUNT_ATTR_RDONLY * (not on), 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    return int(_libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, attributes, len(attributes)))


def enter_namespaces() -> None:
    """Enter a user namespace that maps the same user and group, and mount, process and IPC namespaces."""
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
    """Make all mounts read-only, except for an empty file system in memory. `mode`: MODE, see above."""
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
    """Mount the empty file system in memory on FOLDER/tmp."""
    options = f"size={size},nr_inodes=8k,mode=700"
    check("tmpfs", mount("tmpfs", f"{folder}/tmp", "tmpfs", MS_NOSUID | MS_NODEV, options))
    os.chdir(os.getcwd())  # noqa: PTH109  (resolves the path through the new mounts)


def can_hide_run(*needed: str) -> bool:
    """Whether there is a /run, and none of the needed paths is in it."""
    return os.path.isdir("/run") and not any(os.path.realpath(each).startswith("/run/") for each in needed)  # noqa: PTH112


def mount_minimal_dev(staging_dir: str) -> None:
    """Build a /dev in `staging_dir`, and bind it to /dev.

    A read-only mount does not prevent writes to its devices: a program started by root could write to disks.
    """
    check("tmpfs", mount("tmpfs", staging_dir, "tmpfs", MS_NOSUID, "size=64k,mode=755"))
    for name in DEVICES:
        with open(f"{staging_dir}/{name}", "wb"):
            check(f"bind /dev/{name}", mount(f"/dev/{name}", f"{staging_dir}/{name}", "", MS_BIND))
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(f"/proc/self/{target}", f"{staging_dir}/{name}")  # noqa: PTH211
    check("bind /dev", mount(staging_dir, "/dev", "", MS_BIND | MS_REC))
    check("umount", int(_libc.umount2(staging_dir.encode(), MNT_DETACH)))


def drop_privileges(limits: list[str]) -> None:
    """Drop all capabilities for good, and set the resource limits."""
    for capability in range(LAST_CAPABILITY):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _libc.prctl(PR_SET_SECUREBITS, SECBIT_NOROOT, 0, 0, 0)
    check("prctl", _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    for limit in limits:
        name, _, value = limit.partition("=")
        number = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(number)
        allowed = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
        resource.setrlimit(number, (allowed, allowed))


def limit_processes(limits: list[str]) -> None:
    """Set pid_max of this process namespace, which Linux 6.14 made per namespace.

    RLIMIT_NPROC limits ordinary users only, not root (setrlimit(2)).
    """
    limit = next((int(each.partition("=")[2]) for each in limits if each.startswith("NPROC=")), 0)
    kernel = tuple(int("".join(filter(str.isdigit, part))) for part in os.uname().release.split(".")[:2])
    if not limit or kernel < (6, 14):
        return
    try:
        with open("/proc/sys/kernel/pid_max", "w", encoding="ascii") as file:
            file.write(str(max(limit, MIN_PID_MAX)))
    except OSError:  # for example in a container with a masked /proc: the old value stays
        return


def limit_processes_and_protect_proc(limits: list[str]) -> None:
    """Limit the processes, then make /proc read-only, because /proc/sys obeys root of the outer namespace."""
    limit_processes(limits)
    check("mount_setattr", set_read_only("/proc", on=True, recursive=True))


def exec_program(folder: str, limits: list[str], command: list[str]) -> None:
    """Replace this process by the program."""
    drop_privileges(limits)
    if os.path.isdir(f"{folder}/tmp"):  # noqa: PTH112
        os.environ.update(TMPDIR=f"{folder}/tmp", HOME=f"{folder}/tmp")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"sandbox: {command[0]}: {error.strerror}\n")
        os._exit(EXIT_SETUP_FAILED)


def run_init(folder: str, limits: list[str], command: list[str]) -> None:
    """Run as process 1: start the program, reap orphans, and exit with the program's status."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV)  # if that is not allowed, the old one stays
    limit_processes_and_protect_proc(limits)
    program = os.fork()
    if program == 0:
        exec_program(folder, limits, command)
    while True:
        pid, status = os.wait()
        if pid == program:
            os._exit(exit_code(status))


def exit_code(status: int) -> int:
    """Return an exit status: 128 plus the number for a signal, because process 1 cannot kill itself."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def main(arguments: list[str]) -> None:
    """Run the steps above."""
    at = arguments.index("--")
    (folder, mode, size, hosts, *limits), command = arguments[:at], arguments[at + 1 :]
    if mode == "bounds":
        mount_tmp(folder, size)
        limit_processes_and_protect_proc(limits)
        exec_program(folder, limits, command)
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    enter_namespaces()
    mount_read_only(folder, mode, size, hosts)
    first = os.fork()
    if first == 0:
        run_init(folder, limits, command)
    os.close(1)  # so that the reader gets EOF when the program closes its output
    os.close(2)
    _, status = os.waitpid(first, 0)
    code = exit_code(status)
    if code > 128:  # exit by the same signal
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), code - 128)
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
