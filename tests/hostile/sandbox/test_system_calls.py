"""A submission that makes system calls that no course needs: each fails, and the program goes on."""

from __future__ import annotations

import errno
import platform
import struct
from pathlib import Path

import pytest

from bothends.check.sandbox import seccomp
from tests.check.test_sandbox import sandbox_unavailable_reason
from tests.hostile.sandbox.confined import run, users

CALLS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) for a in arguments))
    return ctypes.get_errno() if result < 0 else 0
for name, number in sorted(NUMBERS.items()):
    print(name, call(number, 0, 0, 0, 0, 0, 0))
for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
    print("clone", call(CLONE, flag | 17, 0, 0, 0, 0))
print("TIOCSTI", call(IOCTL, 0, 0x5412, 0))
pid = os.fork()
if pid == 0:
    os._exit(7)
print("fork", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
import threading
thread = threading.Thread(target=print, args=("thread", 0))
thread.start()
thread.join()
"""


@pytest.mark.skipif(
    bool(sandbox_unavailable_reason()), reason=f"no sandbox here: {sandbox_unavailable_reason()}"
)
@pytest.mark.parametrize("user", users())
def test_forbidden_system_calls_fail(user: str, tmp_path: Path) -> None:
    column = 0 if platform.machine() == "x86_64" else 1
    forbidden = {name: numbers[column] for name, numbers in seccomp.FORBIDDEN.items() if numbers[column] >= 0}
    missing = {name: numbers[column] for name, numbers in seccomp.MISSING.items()}
    program = CALLS.replace("NUMBERS", repr(forbidden | missing)).replace("CLONE", str(seccomp.CLONE[column]))
    outcome = run(program.replace("IOCTL", str(seccomp.IOCTL[column])), tmp_path / "own", user)
    assert outcome.status == 0, outcome
    results = [line.split() for line in outcome.stdout.splitlines()]
    expected = dict.fromkeys(forbidden, errno.EPERM) | dict.fromkeys(missing, errno.ENOSYS)
    expected |= {"clone": errno.EPERM, "TIOCSTI": errno.EPERM, "fork": 7, "thread": 0}
    assert len(results) == len(forbidden) + len(missing) + 10
    assert {name: int(number) for name, number in results} == expected


def run_filter(program: bytes, number: int, *arguments: int, architecture: int) -> int:
    """Return what a filter returns for a system call, by its instructions (linux/bpf_common.h)."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *(*arguments, *[0] * (6 - len(arguments))))
    steps = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at = accumulator = 0
    while True:
        code, if_true, if_false, value = steps[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x06:
            return int(value)
        else:
            holds = {
                0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value),
            }[code]  # fmt: skip
            at += if_true if holds else if_false


@pytest.mark.parametrize("machine", seccomp.SUPPORTED)
@pytest.mark.parametrize("counted", [True, False])
def test_filter_decides_as_its_tables_say(machine: str, counted: bool) -> None:
    column, architecture = list(seccomp.SUPPORTED).index(machine), seccomp.SUPPORTED[machine]
    program = seccomp.build_filter(machine, memory_is_counted=counted)
    allow, fail = 0x7FFF0000, 0x00050000
    tables = (
        (seccomp.FORBIDDEN, errno.EPERM), (seccomp.MISSING, errno.ENOSYS), (seccomp.UNCOUNTED, errno.ENOSYS)
    )  # fmt: skip
    expected = {numbers[column]: fail | error for table, error in tables for numbers in table.values()}
    if counted:
        expected |= {numbers[column]: allow for numbers in seccomp.UNCOUNTED.values()}
    socket, clone, ioctl = seccomp.SOCKET[column], seccomp.CLONE[column], seccomp.IOCTL[column]
    for number in {*range(600)} - {socket, clone, ioctl}:
        assert run_filter(program, number, architecture=architecture) == expected.get(number, allow), number
    for family in range(64):
        verdict = allow if family in (1, 2, 10, 16) else fail | errno.EAFNOSUPPORT
        assert run_filter(program, socket, family, architecture=architecture) == verdict, family
    assert run_filter(program, clone, 0x003D0F00, architecture=architecture) == allow  # pthread_create(3)
    assert run_filter(program, clone, 0x10000011, architecture=architecture) == fail | errno.EPERM
    assert run_filter(program, ioctl, 0, 0x5401, architecture=architecture) == allow
    assert run_filter(program, ioctl, 0, 0x5412, architecture=architecture) == fail | errno.EPERM
    assert run_filter(program, 1, architecture=0x40000003) == fail | errno.ENOSYS  # AUDIT_ARCH_I386
    if machine == "x86_64":
        assert run_filter(program, 0x40000001, architecture=architecture) == fail | errno.ENOSYS  # x32
