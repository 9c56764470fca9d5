"""Namespaces of our own, and why not where the system forbids them.

1. Whoever may make a user namespace has every capability inside (user_namespaces(7)), and so may make
   network namespaces and what is in them. Outside nothing is gained.
2. In it each user is who they were: the numbers stay. Root's namespace has everybody's numbers, any other
   user's only its own, as the kernel demands.
3. A network namespace lives as long as a process or a descriptor of it does. A PID namespace's first process
   takes all others in it along when it dies, whatever they have done to hide. So nothing is left behind.
4. Systems forbid user namespaces in four ways; each leaves a trace by which it can be told.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
from pathlib import Path
from typing import Final

from bothends.errors import Unavailable

# linux/sched.h
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

# sys/mount.h
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH: Final = 2

_PR_SET_PDEATHSIG: Final = 1
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_CAPABILITY_VERSION: Final = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
# What a command in a host may do besides what its user may: bind low ports, `ip link`, `ping`, `tcpdump`.
_CAP_NET_BIND_SERVICE, _CAP_NET_ADMIN, _CAP_NET_RAW = 10, 12, 13

_SYSCTL: Final = Path("/proc/sys")
_libc: Final = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Leave namespaces for new ones: unshare(2). Raises OSError."""
    _check(_libc.unshare(flags))


def enter(descriptor: int) -> None:
    """Go to the namespace of a descriptor, whichever kind it is of: setns(2). Raises OSError.

    A PID namespace is for the children of who enters it.
    """
    _check(_libc.setns(descriptor, 0))


def enter_network(descriptor: int) -> None:
    """Go to the network namespace of a descriptor: setns(2). Raises OSError."""
    _check(_libc.setns(descriptor, CLONE_NEWNET))


def new_network_namespace() -> int:
    """Make a network namespace and stay in it; a descriptor of it. Raises OSError."""
    unshare(CLONE_NEWNET)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def write_id_maps(pid: int) -> None:
    """From outside: let the users in the new user namespace of a process be who they are. Raises OSError."""
    folder = Path(f"/proc/{pid}")
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # we are in a user namespace that has not everybody, ourselves
            everyone = "0 0 4294967295"
            (folder / "uid_map").write_text(everyone, encoding="ascii")
            (folder / "gid_map").write_text(everyone, encoding="ascii")
            return
    # Without this a user could drop a group that is there to keep people out (user_namespaces(7)).
    (folder / "setgroups").write_text("deny", encoding="ascii")
    (folder / "uid_map").write_text(f"{os.geteuid()} {os.geteuid()} 1", encoding="ascii")
    (folder / "gid_map").write_text(f"{os.getegid()} {os.getegid()} 1", encoding="ascii")


def mount(source: str, target: str, kind: str, flags: int) -> None:
    """mount(2). Raises OSError."""
    _check(_libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None))


def unmount(target: str) -> None:
    """Take a mount away from the tree, now; what is bound to it stays: umount2(2). Raises OSError."""
    _check(_libc.umount2(target.encode(), MNT_DETACH))


def set_host_name(name: str) -> None:
    """The host name, in a UTS namespace of one's own. Raises OSError."""
    unshare(CLONE_NEWUTS)
    socket.sethostname(name)


def set_parent_death_signal(signal: int) -> None:
    """Get this signal when the parent dies. To be called after unshare, which clears it."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal), 0, 0, 0))


def keep_network_capabilities() -> None:
    """Let what we execute keep the capabilities for its own network, although it isn't root in here.

    capabilities(7): ambient ones stay over execve(2), and must be permitted and inheritable for that.
    Raises OSError.
    """
    mask = 1 << _CAP_NET_BIND_SERVICE | 1 << _CAP_NET_ADMIN | 1 << _CAP_NET_RAW
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: the low 32, then the high 32
    _check(_libc.capget(header, sets))
    sets[2] |= mask
    _check(_libc.capset(header, sets))
    for capability in (_CAP_NET_BIND_SERVICE, _CAP_NET_ADMIN, _CAP_NET_RAW):
        _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, ctypes.c_ulong(capability), 0, 0))


def unavailable_error(number: int) -> Unavailable:
    """Why there are no namespaces, and what would allow them, from the errno that the system answered."""
    return Unavailable("make", "hosts of our own (user namespaces)", number, unavailable_reason(number))


def unavailable_reason(number: int, sysctl: Path = _SYSCTL) -> str:
    """What forbids user namespaces, as far as the system tells, and what would allow them."""
    if number in (errno.EMFILE, errno.ENFILE):
        return "more files must be open at once than ulimit -n allows"
    if _read_sysctl(sysctl / "kernel/unprivileged_userns_clone") == "0":
        return "to allow them: sysctl kernel.unprivileged_userns_clone=1"
    for kind in ("user", "net", "pid", "mnt", "uts"):
        if _read_sysctl(sysctl / f"user/max_{kind}_namespaces") == "0":
            return f"to allow them: sysctl user.max_{kind}_namespaces=10000"
    if _read_sysctl(sysctl / "kernel/apparmor_restrict_unprivileged_userns") == "1":
        return "AppArmor forbids them; to allow them: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    if number == errno.ENOSPC:
        return "there are as many as there may be: see /proc/sys/user"
    if number == errno.EROFS:
        return "a container has made /proc/sys read-only (docker run --security-opt systempaths=unconfined)"
    if number in (errno.EINVAL, errno.ENOSYS):
        return "this kernel was built without them (CONFIG_USER_NS, CONFIG_NET_NS)"
    if number == errno.EPERM:
        return (
            "in a container its seccomp profile forbids them (docker run --security-opt seccomp=unconfined)"
        )
    return "see user_namespaces(7)"


def _read_sysctl(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
