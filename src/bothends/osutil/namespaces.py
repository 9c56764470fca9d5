"""Create and enter Linux namespaces, and explain why the system forbids them.

1. A process that creates a user namespace has all capabilities in it (user_namespaces(7)), so it may create
   network namespaces and configure them. It gains no rights outside.
2. Users keep their numeric ids inside. The id maps of root's namespace have all ids, those of any other user
   only the user's own, as the kernel demands.
3. A network namespace exists as long as a process or a descriptor refers to it. When the first process of a
   PID namespace exits, the kernel kills all others in it, however they have daemonized. So no process is left
   behind.
4. Systems forbid user namespaces in four ways; errno and /proc/sys show which.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import Final

from bothends.errors import OUT_OF_DESCRIPTORS, Unavailable

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
# Additional rights of a command in a host: bind ports below 1024, and run `ip link`, `ping` and `tcpdump`.
_CAP_NET_BIND_SERVICE, _CAP_NET_ADMIN, _CAP_NET_RAW = 10, 12, 13

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1  # netdevice(7)

_SYSCTL: Final = Path("/proc/sys")
_libc: Final = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Move this process to new namespaces: unshare(2). Raises OSError."""
    _check(_libc.unshare(flags))


def enter(descriptor: int) -> None:
    """Enter the namespace of a descriptor, of any kind: setns(2). Raises OSError.

    Entering a PID namespace affects the caller's future children only.
    """
    _check(_libc.setns(descriptor, 0))


def enter_network(descriptor: int) -> None:
    """Enter the network namespace of a descriptor: setns(2). Raises OSError."""
    _check(_libc.setns(descriptor, CLONE_NEWNET))


def new_network_namespace() -> int:
    """Create and enter a network namespace. Returns a descriptor of it. Raises OSError."""
    unshare(CLONE_NEWNET)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def bring_loopback_up() -> None:
    """Bring the loopback interface of this thread's network namespace up: netdevice(7). Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14x", b"lo", 0)
        (found,) = struct.unpack("16xH14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", found | _IFF_UP))


def write_id_maps(pid: int) -> None:
    """Map users to themselves in the new user namespace of another process. Raises OSError."""
    folder = Path(f"/proc/{pid}")
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # this process is itself in a user namespace without all ids
            all_ids = "0 0 4294967295"
            (folder / "uid_map").write_text(all_ids, encoding="ascii")
            (folder / "gid_map").write_text(all_ids, encoding="ascii")
            return
    # The kernel demands this, because otherwise a user could drop a group that denies access
    # (user_namespaces(7)).
    (folder / "setgroups").write_text("deny", encoding="ascii")
    (folder / "uid_map").write_text(f"{os.geteuid()} {os.geteuid()} 1", encoding="ascii")
    (folder / "gid_map").write_text(f"{os.getegid()} {os.getegid()} 1", encoding="ascii")


def mount(source: str, target: str, kind: str, flags: int) -> None:
    """Mount a file system: mount(2). Raises OSError."""
    _check(_libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None))


def unmount(target: str) -> None:
    """Detach a mount from the tree; bind mounts of its files stay: umount2(2). Raises OSError."""
    _check(_libc.umount2(target.encode(), MNT_DETACH))


def set_host_name(name: str) -> None:
    """Set the host name in a new UTS namespace. Raises OSError."""
    unshare(CLONE_NEWUTS)
    socket.sethostname(name)


def set_parent_death_signal(signal: int) -> None:
    """Have the kernel send this process a signal when its parent exits: prctl(2). Raises OSError.

    Call it after unshare(2), which clears the setting.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal), 0, 0, 0))


def keep_network_capabilities() -> None:
    """Keep the capabilities for the network namespace across execve(2), although the user is not root.

    Ambient capabilities survive execve(2); they must be permitted and inheritable (capabilities(7)). Raises
    OSError.
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
    """Return the error for a failed creation of namespaces, with a hint that explains the errno."""
    return Unavailable("create", "the wire's hosts (user namespaces)", number, unavailable_reason(number))


def unavailable_reason(number: int, sysctl: Path = _SYSCTL) -> str:
    """Return what forbids user namespaces, as far as /proc/sys and the errno show, and what allows them."""
    if number in OUT_OF_DESCRIPTORS:
        return "too many open files; raise ulimit -n"
    if _read_sysctl(sysctl / "kernel/unprivileged_userns_clone") == "0":
        return "to allow them: sysctl kernel.unprivileged_userns_clone=1"
    for kind in ("user", "net", "pid", "mnt", "uts"):
        if _read_sysctl(sysctl / f"user/max_{kind}_namespaces") == "0":
            return f"to allow them: sysctl user.max_{kind}_namespaces=10000"
    if _read_sysctl(sysctl / "kernel/apparmor_restrict_unprivileged_userns") == "1":
        return "AppArmor forbids them; to allow them: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    if number == errno.ENOSPC:
        return "their maximum number is reached; see /proc/sys/user"
    if number == errno.EROFS:
        return "a container has made /proc/sys read-only (docker run --security-opt systempaths=unconfined)"
    if number in (errno.EINVAL, errno.ENOSYS):
        return "this kernel is built without them (CONFIG_USER_NS, CONFIG_NET_NS)"
    if number == errno.EPERM:
        return "a container's seccomp profile forbids them (docker run --security-opt seccomp=unconfined)"
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
