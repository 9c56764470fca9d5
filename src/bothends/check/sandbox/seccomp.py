"""The seccomp filter of the sandbox: fails system calls that no program under test needs (seccomp(2)).

1. The filter is a classic BPF program over `struct seccomp_data`. Linux 5.11 and newer cache its verdict for
   each system call that it allows whatever the arguments, so these calls cost nothing more.
2. Calls of another ABI (i386 and x32 on x86-64) fail with ENOSYS, because their numbers differ.
3. clone3(2) fails with ENOSYS, because its flags are in memory, which a filter cannot read. The C library
   then uses clone(2), whose flags for new namespaces the filter sees.
4. Sockets are of the families that are confined by the network namespace. AF_VSOCK, for example, is not
   (vsock(7)).
"""

from __future__ import annotations

import errno
import platform
import struct
from typing import Final

SUPPORTED: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""Machine (uname(2)) to AUDIT_ARCH (linux/audit.h)."""

_NONE: Final = -1  # the architecture has no such call
# Name: number on x86-64, number on arm64 (asm/unistd_64.h, asm-generic/unistd.h).
FORBIDDEN: Final[dict[str, tuple[int, int]]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "ioperm": (173, _NONE),
    "iopl": (172, _NONE),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "migrate_pages": (256, 238),
    "modify_ldt": (154, _NONE),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
# These fail with ENOSYS, for which programs have a fallback.
MISSING: Final[dict[str, tuple[int, int]]] = {
    "clone3": (435, 435),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "listmount": (458, 458),
    "memfd_secret": (447, 447),
    "statmount": (457, 457),
}
# Memory that belongs to no process (memfds, System V IPC), so that only a cgroup counts it.
UNCOUNTED: Final[dict[str, tuple[int, int]]] = {
    "memfd_create": (319, 279),
    "msgget": (68, 186),
    "semget": (64, 190),
    "shmget": (29, 194),
}

CLONE: Final = (56, 220)
SOCKET: Final = (41, 198)
IOCTL: Final = (16, 29)
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (linux/sched.h)
_NEW_NAMESPACES: Final = 0x20000 | 0x2000000 | 0x4000000 | 0x8000000 | 0x10000000 | 0x20000000 | 0x40000000
_FAMILIES: Final = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
_TERMINAL_INPUT: Final = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: type into a terminal (ioctl_tty(2))
_X32_BIT: Final = 0x40000000  # asm/unistd.h

# linux/bpf_common.h and linux/seccomp.h
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_GREATER_OR_EQUAL, _JUMP_IF_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_RET_ALLOW, _RET_ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24  # offsets in struct seccomp_data


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return one instruction, a `struct sock_filter` (linux/filter.h)."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _fail(number: int) -> bytes:
    return _step(_RETURN, _RET_ERRNO | number)


def build_filter(machine: str = "", *, memory_is_counted: bool = True) -> bytes:
    """Return the BPF program.

    Args:
        machine: the machine of uname(2), by default this one's.
        memory_is_counted: whether a cgroup bounds the program's memory. If not, memfd_create(2), msgget(2),
            semget(2) and shmget(2) fail too.

    Raises:
        KeyError: there is no table of system calls for this machine.
    """
    machine = machine or platform.machine()
    column = 0 if machine == "x86_64" else 1
    steps = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_JUMP_IF_EQUAL, SUPPORTED[machine], 1, 0),
        _fail(errno.ENOSYS),
    ]
    steps.append(_step(_LOAD, _NUMBER))
    if machine == "x86_64":
        steps += [_step(_JUMP_IF_GREATER_OR_EQUAL, _X32_BIT, 0, 1), _fail(errno.ENOSYS)]
    missing = dict(MISSING) if memory_is_counted else MISSING | UNCOUNTED
    for table, error in ((FORBIDDEN, errno.EPERM), (missing, errno.ENOSYS)):
        for numbers in table.values():
            if numbers[column] != _NONE:
                steps += [_step(_JUMP_IF_EQUAL, numbers[column], 0, 1), _fail(error)]
    steps += [
        _step(_JUMP_IF_EQUAL, CLONE[column], 0, 4),
        _step(_LOAD, _FIRST_ARGUMENT),
        _step(_JUMP_IF_SET, _NEW_NAMESPACES, 0, 1),
        _fail(errno.EPERM),
        _step(_RETURN, _RET_ALLOW),
        _step(_JUMP_IF_EQUAL, SOCKET[column], 0, len(_FAMILIES) + 3),
        _step(_LOAD, _FIRST_ARGUMENT),
        *(_step(_JUMP_IF_EQUAL, family, len(_FAMILIES) - n, 0) for n, family in enumerate(_FAMILIES)),
        _fail(errno.EAFNOSUPPORT),
        _step(_RETURN, _RET_ALLOW),
        _step(_JUMP_IF_EQUAL, IOCTL[column], 0, len(_TERMINAL_INPUT) + 3),
        _step(_LOAD, _SECOND_ARGUMENT),
        *(_step(_JUMP_IF_EQUAL, each, len(_TERMINAL_INPUT) - n, 0) for n, each in enumerate(_TERMINAL_INPUT)),
        _step(_RETURN, _RET_ALLOW),
        _fail(errno.EPERM),
        _step(_RETURN, _RET_ALLOW),
    ]
    return b"".join(steps)
