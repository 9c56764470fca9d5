"""Decode recorded system calls: /proc/PID/task/TID/syscall, memory and epoll lists as they were read."""

from __future__ import annotations

import struct

import pytest

from bothends.osutil.blocked_calls import (
    BlockedCall,
    CallKind,
    DescriptorWait,
    Need,
    RawCall,
    decode,
    parse_fd_set,
    parse_interest,
    parse_pollfds,
    parse_syscall,
)

STACK = "0x7ffffacf38a8 0x7ff32a328b59"
EPOLL = """pos:\t0
flags:\t02000002
mnt_id:\t16
ino:\t1057
tfd:        5 events:       19 data: 5  pos:0 ino:9ac7 sdev:8
tfd:        7 events: 80000001 data: 7  pos:0 ino:9ac9 sdev:8
tfd:        8 events: 40000000 data: 8  pos:0 ino:9aca sdev:8
tfd:        9 events:        4 data: 9  pos:0 ino:9acb sdev:8
"""


def no_memory(address: int, length: int) -> bytes:
    return b""


def no_interest(fd: int) -> str:
    return ""


def decode_text(text: str, machine: str = "x86_64", memory: bytes = b"") -> BlockedCall:
    raw = parse_syscall(text)
    assert raw is not None
    return decode(raw, machine, lambda address, length: memory[:length], no_interest)


@pytest.mark.parametrize(
    ("machine", "text", "name", "fd", "need"),
    [
        ("x86_64", f"45 0x3 0x5613f81c3220 0x10000 0x0 0x0 0x0 {STACK}", "recv", 3, Need.DATA),
        ("x86_64", f"44 0x4 0x5613f81c3220 0x10000 0x0 0x0 0x0 {STACK}", "send", 4, Need.SPACE),
        ("x86_64", f"0 0x0 0x5613f81c3220 0x400 0x0 0x0 0x0 {STACK}", "read", 0, Need.DATA),
        ("x86_64", f"288 0x3 0x7ffc 0x7ffc 0x80000 0x0 0x0 {STACK}", "accept", 3, Need.CONNECTION),
        ("x86_64", f"42 0x5 0x7ffc 0x10 0x0 0x0 0x0 {STACK}", "connect", 5, Need.PEER),
        ("aarch64", f"207 0x3 0x5613f81c3220 0x64 0x0 0x0 0x0 {STACK}", "recv", 3, Need.DATA),
        ("aarch64", f"206 0x4 0x5613f81c3220 0x64 0x0 0x0 0x0 {STACK}", "send", 4, Need.SPACE),
        ("aarch64", f"242 0x3 0x0 0x0 0x80000 0x0 0x0 {STACK}", "accept", 3, Need.CONNECTION),
    ],
)
def test_calls_on_one_descriptor(machine: str, text: str, name: str, fd: int, need: Need) -> None:
    expected = BlockedCall(name, CallKind.DESCRIPTORS, (DescriptorWait(fd, need),), direct=True)
    assert decode_text(text, machine) == expected


@pytest.mark.parametrize("text", ["running\n", "", "garbage here", "1 2"])
def test_no_call(text: str) -> None:
    assert parse_syscall(text) is None


def test_blocked_outside_a_call() -> None:
    assert parse_syscall("-1 0x7ffc 0x7ff3\n") == RawCall(-1, (), 0x7FFC)
    assert decode_text("-1 0x7ffc00000000 0x7ff3").kind is CallKind.OTHER


def test_flags_of_recv() -> None:
    whole = decode_text(f"45 0x4 0x5613f81c3220 0x64 0x100 0x0 0x0 {STACK}")
    assert whole.whole == 100
    passing = decode_text(f"45 0x4 0x5613f81c3220 0x64 0x40 0x0 0x0 {STACK}")
    assert (passing.kind, passing.waits) == (CallKind.OTHER, ())


def test_call_of_32_bit_process_is_unknown() -> None:
    assert decode_text("3 0x3 0x1000 0x10 0x0 0x0 0x0 0xffc01234 0xf7f01234").name == ""


@pytest.mark.parametrize(("timeout", "seconds"), [("0xffffffff", None), ("0x1388", 5.0)])
def test_poll(timeout: str, seconds: float | None) -> None:
    memory = struct.pack("=ihhihhihh", 3, 1, 0, -1, 1, 0, 4, 5, 0)
    call = decode_text(f"7 0x7ffc00001000 0x3 {timeout} 0x0 0x0 0x0 {STACK}", memory=memory)
    waits = (DescriptorWait(3, Need.DATA), DescriptorWait(4, Need.DATA), DescriptorWait(4, Need.SPACE))
    assert (call.name, call.waits, call.timeout, call.complete) == ("poll", waits, seconds, True)


def test_poll_with_unreadable_memory_is_incomplete() -> None:
    call = decode_text(f"7 0x7ffc00001000 0x3 0xffffffff 0x0 0x0 0x0 {STACK}")
    assert (call.kind, call.waits, call.complete) == (CallKind.DESCRIPTORS, (), False)


def test_poll_without_descriptors_sleeps() -> None:
    assert decode_text(f"7 0x0 0x0 0x3e8 0x0 0x0 0x0 {STACK}").kind is CallKind.TIME


def test_select() -> None:
    words = {0x1000: struct.pack("=Q", 0b1001000), 0x2000: struct.pack("=Q", 1 << 5), 0x3000: b""}
    words[0x4000] = struct.pack("=qq", 2, 500_000)
    raw = parse_syscall(f"23 0x7 0x1000 0x2000 0x0 0x4000 0x0 {STACK}")
    assert raw is not None
    call = decode(raw, "x86_64", lambda address, length: words[address][:length], no_interest)
    waits = (DescriptorWait(3, Need.DATA), DescriptorWait(6, Need.DATA), DescriptorWait(5, Need.SPACE))
    assert (call.name, call.waits, call.timeout) == ("select", waits, 2.5)


@pytest.mark.parametrize("unread", [0x1000, 0x2000])
def test_select_with_one_unreadable_set_is_incomplete(unread: int) -> None:
    words = {0x1000: struct.pack("=Q", 1 << 3), 0x2000: struct.pack("=Q", 1 << 5)} | {unread: b""}
    raw = parse_syscall(f"23 0x7 0x1000 0x2000 0x0 0x0 0x0 {STACK}")
    assert raw is not None
    call = decode(raw, "x86_64", lambda address, length: words[address][:length], no_interest)
    assert (len(call.waits), call.complete) == (1, False)


def test_epoll_wait() -> None:
    raw = parse_syscall(f"232 0x6 0x7ffc 0x40 0xffffffffffffffff 0x0 0x0 {STACK}")
    assert raw is not None
    call = decode(raw, "x86_64", no_memory, {6: EPOLL}.__getitem__)
    assert (call.name, call.timeout, call.complete, call.direct) == ("epoll_wait", None, True, False)
    assert call.waits == (
        DescriptorWait(5, Need.DATA, 0x9AC7),
        DescriptorWait(7, Need.DATA, 0x9AC9, edge=True),
        DescriptorWait(9, Need.SPACE, 0x9ACB),
    )


def test_epoll_list_that_is_not_readable_is_incomplete() -> None:
    assert not decode_text(f"232 0x6 0x7ffc 0x40 0xffffffff 0x0 0x0 {STACK}").complete


@pytest.mark.parametrize(
    ("operation", "timeout", "kind"),
    [
        ("0x80", "0x0", CallKind.THREADS),  # FUTEX_WAIT | FUTEX_PRIVATE_FLAG
        ("0x189", "0x0", CallKind.THREADS),  # FUTEX_WAIT_BITSET with the real-time clock
        ("0x189", "0x7ffc", CallKind.TIME),
        ("0x0", "0x0", CallKind.OTHER),  # shared with other processes
    ],
)
def test_futex(operation: str, timeout: str, kind: CallKind) -> None:
    assert decode_text(f"202 0x55 {operation} 0x2 {timeout} 0x0 0x0 {STACK}").kind is kind


def test_sleep_has_its_duration() -> None:
    memory = struct.pack("=qq", 5, 0)
    call = decode_text(f"35 0x7ffc00001000 0x0 0x0 0x0 0x0 0x0 {STACK}", memory=memory)
    assert (call.kind, call.timeout) == (CallKind.TIME, 5.0)


def test_parsers_of_arrays() -> None:
    assert parse_pollfds(b"\0" * 7) == []
    assert parse_fd_set(b"\x01\x80", Need.DATA) == [
        DescriptorWait(0, Need.DATA),
        DescriptorWait(15, Need.DATA),
    ]
    assert parse_interest("pos:\t0\nflags:\t02\n") == []
