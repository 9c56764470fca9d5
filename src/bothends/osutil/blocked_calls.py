"""Decode the system call that a thread is blocked in: /proc/PID/task/TID/syscall of proc(5).

Pure. What the kernel shows, and what follows:

1. The file holds the number of the call, its six arguments and two registers, in hexadecimal; `running` for a
   thread on a processor, `-1 SP PC` for one that is blocked outside a system call. The numbers depend on the
   architecture: asm/unistd_64.h for x86-64, asm-generic/unistd.h for aarch64.
2. select(2) and poll(2) take pointers, so their descriptors are in the memory of the process. The caller
   passes a function that reads it.
3. The interest list of epoll(7) is in the kernel: /proc/PID/fdinfo/EPFD. It names the inode of each file,
   which is better than the descriptor, whose number may have been reused.
4. A 32-bit process on a 64-bit kernel uses other numbers. Its stack pointer is below 4 GiB; such a call is
   reported as unknown.
5. The time limits of SO_RCVTIMEO and SO_SNDTIMEO are not among the arguments: `snapshot` reads them.
"""

from __future__ import annotations

import enum
import re
import select
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

_MAX_DESCRIPTORS: Final = 65_536  # of poll() and select(): bounds what is read from another process

# Name -> number on x86-64 and on aarch64; None where the architecture lacks the call.
_NUMBERS: Final[dict[str, tuple[int | None, int | None]]] = {
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "recvfrom": (45, 207),
    "recvmsg": (47, 212),
    "recvmmsg": (299, 243),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    "accept": (43, 202),
    "accept4": (288, 242),
    "connect": (42, 203),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441),
    "sendfile": (40, 71),
    "splice": (275, 76),
    "futex": (202, 98),
    "futex_waitv": (449, 449),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "wait4": (61, 260),
    "waitid": (247, 95),
    "pause": (34, None),
    "rt_sigsuspend": (130, 133),
    "rt_sigtimedwait": (128, 137),
    "restart_syscall": (219, 128),
    "flock": (73, 32),
    "fcntl": (72, 25),
    "fsync": (74, 82),
    "io_uring_enter": (426, 426),
    "close": (3, 57),
}
_MACHINES: Final = ("x86_64", "aarch64")
_BY_NUMBER: Final = {
    machine: {numbers[at]: name for name, numbers in _NUMBERS.items() if numbers[at] is not None}
    for at, machine in enumerate(_MACHINES)
}

_MSG_DONTWAIT, _MSG_WAITALL = 0x40, 0x100  # bits/socket.h
_FLAGS_ARGUMENT: Final = {
    "recvfrom": 3,
    "sendto": 3,
    "recvmsg": 2,
    "sendmsg": 2,
    "recvmmsg": 3,
    "sendmmsg": 3,
}
_FUTEX_PRIVATE: Final = 128  # linux/futex.h
_FUTEX_WAIT_OPERATIONS: Final = {0, 6, 9, 11, 13}  # WAIT, LOCK_PI, WAIT_BITSET, WAIT_REQUEUE_PI, LOCK_PI2
_POLLFD: Final = struct.Struct("=ihh")
_TIMES: Final = struct.Struct("=qq")
_EPOLL_FLAGS: Final = 0xF << 28  # EPOLLET, EPOLLONESHOT, EPOLLWAKEUP, EPOLLEXCLUSIVE
_EPOLL_LINE: Final = re.compile(r"^tfd:\s*(\d+) events:\s*([0-9a-f]+) .*?ino:([0-9a-f]+)", re.MULTILINE)

# Address and length -> bytes; shorter, or empty, if the memory is not accessible.
ReadMemory = Callable[[int, int], bytes]
# An epoll descriptor -> the text of its /proc/PID/fdinfo file; empty if it is not accessible.
ReadInterest = Callable[[int], str]


class Need(enum.Enum):
    """What a thread waits for on a descriptor."""

    DATA = "data"
    SPACE = "space"
    CONNECTION = "connection"  # accept()
    PEER = "peer"  # connect()


class CallKind(enum.Enum):
    """What ends a blocking call."""

    DESCRIPTORS = "descriptors"  # one of `BlockedCall.waits`
    THREADS = "threads"  # another thread of the same process: a private futex
    TIME = "time"
    OTHER = "other"  # a signal, a child, a disk, a shared futex, or unknown


@dataclass(frozen=True, slots=True)
class DescriptorWait:
    """One descriptor that a thread waits for. `inode` is 0 unless the kernel named it (epoll).

    `edge`: edge-triggered (EPOLLET), so that data that is already there raises no event.
    """

    fd: int
    need: Need
    inode: int = 0
    edge: bool = False


@dataclass(frozen=True, slots=True)
class BlockedCall:
    """The call that a thread is blocked in.

    `name` is that of the man page; "" if unknown. `timeout` is the limit that the call was given, in seconds;
    None for none. `complete` is False if not all descriptors could be read, so that others may end the call.
    `direct`: the call moves data itself (recv, send, accept), unlike select, poll and epoll_wait.
    `whole`: the bytes that recv() with MSG_WAITALL was called for, 0 without the flag.
    `option`: the socket option that `timeout` comes from, "" for none; None if the options could not be read,
    so that the call may have a limit.
    """

    name: str
    kind: CallKind
    waits: tuple[DescriptorWait, ...] = ()
    timeout: float | None = None
    complete: bool = True
    direct: bool = False
    whole: int = 0
    option: str | None = ""


@dataclass(frozen=True, slots=True)
class RawCall:
    """The numbers of /proc/PID/task/TID/syscall. `number` is -1 outside a system call."""

    number: int
    arguments: tuple[int, ...] = field(default_factory=tuple)
    stack_pointer: int = 0


def parse_syscall(text: str) -> RawCall | None:
    """Parse the file. Returns None for a running thread, and for text that is not in the format."""
    words = text.split()
    try:
        numbers = [int(words[0]), *(int(word, 16) for word in words[1:])]
    except (IndexError, ValueError):  # "running"
        return None
    if len(numbers) == 3:
        return RawCall(numbers[0], (), numbers[1])
    return RawCall(numbers[0], tuple(numbers[1:7]), numbers[7]) if len(numbers) == 9 else None


def call_name(raw: RawCall, machine: str) -> str:
    """Return the name of a call of `_NUMBERS`; "" for any other, and for one of a 32-bit process."""
    if raw.stack_pointer < 1 << 32:
        return ""
    return _BY_NUMBER.get(machine, {}).get(raw.number, "")


def decode(raw: RawCall, machine: str, memory: ReadMemory, interest: ReadInterest) -> BlockedCall:
    """Decode a call of a machine (`os.uname().machine`), with the memory and epoll lists of its process."""
    name = call_name(raw, machine)
    if not name or not raw.arguments:
        return BlockedCall(name, CallKind.OTHER)
    first = _signed(raw.arguments[0])
    if name in _SINGLE:
        flags = raw.arguments[_FLAGS_ARGUMENT[name]] if name in _FLAGS_ARGUMENT else 0
        if flags & _MSG_DONTWAIT:  # caught on its way through the call
            return BlockedCall(name, CallKind.OTHER)
        wait = DescriptorWait(first, _SINGLE[name])
        whole = raw.arguments[2] if name == "recvfrom" and flags & _MSG_WAITALL else 0
        return BlockedCall(
            _SHORT_NAMES.get(name, name), CallKind.DESCRIPTORS, (wait,), direct=True, whole=whole
        )
    if name in ("poll", "ppoll"):
        return _decode_poll(name, raw.arguments, memory)
    if name in ("select", "pselect6"):
        return _decode_select(name, raw.arguments, memory)
    if name.startswith("epoll"):
        return _decode_epoll(name, raw.arguments, memory, interest)
    if name == "splice":
        waits = (DescriptorWait(first, Need.DATA), DescriptorWait(_signed(raw.arguments[2]), Need.SPACE))
        return BlockedCall(name, CallKind.DESCRIPTORS, waits, complete=False, direct=True)
    if name == "futex":
        return _decode_futex(raw.arguments, memory)
    if name in ("nanosleep", "clock_nanosleep"):
        pointer = raw.arguments[0 if name == "nanosleep" else 2]
        absolute = name == "clock_nanosleep" and raw.arguments[1] & 1  # TIMER_ABSTIME: not a duration
        return BlockedCall(
            name, CallKind.TIME, timeout=None if absolute else _duration(memory(pointer, _TIMES.size), 1e9)
        )
    return BlockedCall(name, CallKind.OTHER)


def parse_pollfds(data: bytes) -> list[DescriptorWait]:
    """Parse an array of struct pollfd (poll(2)). Negative descriptors are ignored, as the kernel does."""
    found = []
    whole = len(data) - len(data) % _POLLFD.size
    for fd, events, _ in _POLLFD.iter_unpack(data[:whole]):
        if fd >= 0:
            found += _needs(fd, events & 0xFFFF)
    return found


def parse_fd_set(data: bytes, need: Need) -> list[DescriptorWait]:
    """Parse an fd_set (select(2)): words of unsigned long, so little-endian bits on both architectures."""
    return [
        DescriptorWait(at * 8 + bit, need)
        for at, byte in enumerate(data)
        if byte
        for bit in range(8)
        if byte >> bit & 1
    ]


def parse_interest(text: str) -> list[DescriptorWait]:
    """Parse the interest list in the fdinfo file of an epoll descriptor: proc_pid_fdinfo(5).

    A descriptor that is disabled by EPOLLONESHOT has no event left, and is left out.
    """
    found = []
    for fd, events, inode in _EPOLL_LINE.findall(text):
        mask = int(events, 16)
        if mask & ~_EPOLL_FLAGS:
            found += _needs(int(fd), mask, int(inode, 16), edge=bool(mask & select.EPOLLET))
    return found


def _needs(fd: int, events: int, inode: int = 0, *, edge: bool = False) -> list[DescriptorWait]:
    found = []
    if events & (select.POLLIN | select.POLLRDNORM):
        found.append(DescriptorWait(fd, Need.DATA, inode, edge))
    if events & (select.POLLOUT | select.POLLWRNORM):
        found.append(DescriptorWait(fd, Need.SPACE, inode, edge))
    return found


_SINGLE: Final = {
    "read": Need.DATA,
    "readv": Need.DATA,
    "recvfrom": Need.DATA,
    "recvmsg": Need.DATA,
    "recvmmsg": Need.DATA,
    "write": Need.SPACE,
    "writev": Need.SPACE,
    "sendto": Need.SPACE,
    "sendmsg": Need.SPACE,
    "sendmmsg": Need.SPACE,
    "sendfile": Need.SPACE,
    "accept": Need.CONNECTION,
    "accept4": Need.CONNECTION,
    "connect": Need.PEER,
}
# The C library calls these for recv(), send() and accept(), so programs do not contain the names.
_SHORT_NAMES: Final = {"recvfrom": "recv", "sendto": "send", "accept4": "accept"}


def _decode_poll(name: str, arguments: tuple[int, ...], memory: ReadMemory) -> BlockedCall:
    count = arguments[1] & 0xFFFF_FFFF
    length = min(count, _MAX_DESCRIPTORS) * _POLLFD.size
    data = memory(arguments[0], length) if length else b""
    if name == "poll":
        milliseconds = _signed(arguments[2])
        timeout = None if milliseconds < 0 else milliseconds / 1000
    else:
        timeout = _pointed_duration(arguments[2], 1e9, memory)
    waits = tuple(parse_pollfds(data))
    complete = len(data) == count * _POLLFD.size
    return BlockedCall("poll", _kind(waits, complete), waits, timeout, complete)


def _decode_select(name: str, arguments: tuple[int, ...], memory: ReadMemory) -> BlockedCall:
    # The C library rounds nothing up: the kernel reads whole unsigned longs.
    length = (min(_signed(arguments[0]), _MAX_DESCRIPTORS) + 63) // 64 * 8
    waits: list[DescriptorWait] = []
    complete = True
    for pointer, need in ((arguments[1], Need.DATA), (arguments[2], Need.SPACE)):
        if pointer and length > 0:
            data = memory(pointer, length)
            complete = complete and len(data) == length
            waits += parse_fd_set(data, need)
    timeout = _pointed_duration(arguments[4], 1e6 if name == "select" else 1e9, memory)
    return BlockedCall("select", _kind(waits, complete), tuple(waits), timeout, complete)


def _decode_epoll(
    name: str, arguments: tuple[int, ...], memory: ReadMemory, interest: ReadInterest
) -> BlockedCall:
    text = interest(_signed(arguments[0]))
    if name == "epoll_pwait2":
        timeout = _pointed_duration(arguments[3], 1e9, memory)
    else:
        milliseconds = _signed(arguments[3])
        timeout = None if milliseconds < 0 else milliseconds / 1000
    waits = tuple(parse_interest(text))
    return BlockedCall("epoll_wait", CallKind.DESCRIPTORS, waits, timeout, bool(text))


def _decode_futex(arguments: tuple[int, ...], memory: ReadMemory) -> BlockedCall:
    operation = arguments[1]
    if operation & 0x7F not in _FUTEX_WAIT_OPERATIONS or not operation & _FUTEX_PRIVATE:
        return BlockedCall("futex", CallKind.OTHER)
    relative = operation & 0x7F == 0  # the others take a point in time
    limited = bool(arguments[3])
    timeout = _pointed_duration(arguments[3], 1e9, memory) if relative else None
    return BlockedCall("futex", CallKind.TIME if limited else CallKind.THREADS, timeout=timeout)


def _kind(waits: tuple[DescriptorWait, ...] | list[DescriptorWait], complete: bool) -> CallKind:
    """select() and poll() without descriptors are a way to sleep."""
    return CallKind.TIME if complete and not waits else CallKind.DESCRIPTORS


def _pointed_duration(pointer: int, unit: float, memory: ReadMemory) -> float | None:
    return _duration(memory(pointer, _TIMES.size), unit) if pointer else None


def _duration(data: bytes, unit: float) -> float | None:
    """Return the seconds of a struct timespec or timeval; 0 if it is not accessible, since it is a limit."""
    if len(data) < _TIMES.size:
        return 0.0
    seconds, part = _TIMES.unpack_from(data)
    return float(seconds + part / unit)


def _signed(value: int) -> int:
    """Return an int argument: the lower 32 bits of a register."""
    value &= 0xFFFF_FFFF
    return value - (1 << 32) if value >= 1 << 31 else value
