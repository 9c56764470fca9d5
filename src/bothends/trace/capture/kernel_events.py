"""Read what the kernel drops, resets and resends, and why: the tracepoints of tracefs. Needs root.

Facts of tracefs (Linux: trace/ftrace.rst, trace/events.rst), and what follows:

1. An instance (`instances/NAME`) has its own buffers, filters and clock, so that other users of tracefs are
   not disturbed. It outlives its process: the next run removes those of processes that have exited. An
   instance with an open buffer cannot be removed (EBUSY), so another run never loses its own.
2. Where tracefs is not mounted, fsmount(2) mounts it for this process alone, at no path.
3. The clock "mono" is CLOCK_MONOTONIC. The offset to the wall clock is measured at each read.
4. The tracepoints see all packets of the machine. Filters in the kernel select drops by their reason from the
   start, and ports once too many records concern other programs.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final, Protocol

from bothends.errors import Unavailable
from bothends.trace.capture.kernel_formats import EventFormat, parse_format, parse_page
from bothends.trace.capture.kernel_records import (
    DROP_REASONS,
    TRACEPOINTS,
    KernelRecord,
    KernelRecordJoiner,
)
from bothends.trace.model import KernelEvent

INSTANCE_PREFIX: Final = "bothends-"
BUFFER_KB: Final = 512  # of each processor
MAX_PORTS: Final = 60  # in a filter, whose text has at most a page
MAX_PAGES: Final = 200  # read at once from each processor's buffer
_MAX_PAGE: Final = 1 << 16  # bytes: a page of the buffer is a page of memory, or several (Linux 6.8)

# System calls of the new mount API (Linux 5.2), which have the same numbers on all architectures.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_FSOPEN_CLOEXEC, _FSCONFIG_CMD_CREATE, _FSMOUNT_CLOEXEC = 1, 6, 1
_MOUNT_ATTR_NOSUID_NODEV_NOEXEC: Final = 2 | 4 | 8


class KernelEventSource(Protocol):
    """A source of events of the kernel: `KernelTracer`, or recorded ones."""

    def read(self) -> list[KernelEvent]:
        """Return the events since the last call, in order. Never blocks."""

    def filter_ports(self, ports: Collection[int]) -> None:
        """Leave out events of other ports, where the kernel can tell."""

    def has_lost(self) -> bool:
        """Return whether events were lost, because they came faster than they were read."""

    def close(self) -> None:
        """Release the source."""


class KernelTracer:
    """Traces the tracepoints of `TRACEPOINTS`. Close it, or use it in a with statement.

    Raises:
        Unavailable: missing privilege, or a kernel without tracefs or without these tracepoints.
    """

    def __init__(self) -> None:
        self._lost = False
        self._buffers: list[int] = []
        self._formats: dict[int, EventFormat] = {}
        self._joiner = KernelRecordJoiner()
        self._ready = select.poll()
        self._ports: frozenset[int] = frozenset()
        self._mount = -1
        self._instance: Path | None = None
        try:
            root = self._find_tracefs()
            remove_stale_instances(root)
            self._instance = root / "instances" / f"{INSTANCE_PREFIX}{os.getpid()}"
            self._instance.mkdir()
            self._set_up(self._instance)
        except OSError as error:
            self.close()
            raise Unavailable(
                "read", "tracefs", error.errno or 0, "run as root, on a kernel with tracefs"
            ) from error

    def _find_tracefs(self) -> Path:
        with contextlib.suppress(OSError):
            for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
                left, _, right = line.partition(" - ")
                fields = left.split()
                if right.startswith("tracefs ") and len(fields) > 4 and fields[3] == "/":
                    return Path(fields[4])
        self._mount = _mount_tracefs()
        return Path(f"/proc/self/fd/{self._mount}")

    def _set_up(self, instance: Path) -> None:
        _write(instance / "trace_clock", "mono")
        _write(instance / "buffer_size_kb", str(BUFFER_KB))
        with contextlib.suppress(OSError):  # Linux 5.0: wake up for each record
            _write(instance / "buffer_percent", "0")
        enabled = []
        for name in TRACEPOINTS:
            folder = instance / "events" / name
            try:
                found = parse_format((folder / "format").read_text(encoding="utf-8"))
            except (FileNotFoundError, ValueError):
                continue  # an older kernel
            if found.name == "kfree_skb":
                numbers = [found.value_of("reason", each) for each in sorted(DROP_REASONS)]
                condition = " || ".join(f"reason == {each}" for each in numbers if each is not None)
                if not condition:
                    continue  # before Linux 5.17 the kernel gives no reason
                _write(folder / "filter", condition)
            self._formats[found.number] = found
            enabled.append(folder)
        if not enabled:
            raise FileNotFoundError(errno.ENOENT, "no tracepoints")
        for folder in sorted((instance / "per_cpu").glob("cpu[0-9]*")):
            buffer = os.open(folder / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._buffers.append(buffer)
            self._ready.register(buffer, select.POLLIN)
        for folder in enabled:
            _write(folder / "enable", "1")

    def read(self) -> list[KernelEvent]:
        """Return the events since the last call, in order. Never blocks."""
        records = []
        for buffer, _ in self._ready.poll(0):
            for _ in range(MAX_PAGES):
                try:
                    page = os.read(buffer, _MAX_PAGE)
                except BlockingIOError:
                    break
                if not page:
                    break
                in_page, lost = parse_page(page)
                self._lost |= lost
                records += in_page
        if not records:
            return []
        offset = time.time_ns() - time.monotonic_ns()
        records.sort(key=lambda each: each.at)
        return list(
            self._joiner.events(
                KernelRecord(each.at + offset, found, found.decode(each.data))
                for each in records
                if (found := self._formats.get(each.format_number)) is not None
            )
        )

    def filter_ports(self, ports: Collection[int]) -> None:
        """Leave out events of other ports, where the kernel can tell."""
        if self._instance is None or frozenset(ports) == self._ports or not 0 < len(ports) <= MAX_PORTS:
            return
        self._ports = frozenset(ports)
        condition = " || ".join(f"sport == {each} || dport == {each}" for each in sorted(ports))
        names = {name.partition("/")[2]: name for name in TRACEPOINTS}
        for each in self._formats.values():
            if {"sport", "dport"} <= each.fields.keys():
                with contextlib.suppress(OSError):
                    _write(self._instance / "events" / names[each.name] / "filter", condition)

    def has_lost(self) -> bool:
        """Return whether events were lost, because they came faster than they were read."""
        return self._lost

    def close(self) -> None:
        """Stop tracing, and remove the instance."""
        for buffer in self._buffers:
            os.close(buffer)
        self._buffers.clear()
        if self._instance is not None:
            with contextlib.suppress(OSError):
                self._instance.rmdir()
            self._instance = None
        if self._mount >= 0:
            os.close(self._mount)
            self._mount = -1

    def __enter__(self) -> KernelTracer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def remove_stale_instances(tracefs: Path) -> None:
    """Remove the instances of processes that were killed. Those in use stay."""
    with contextlib.suppress(OSError):
        for folder in (tracefs / "instances").iterdir():
            pid = folder.name.removeprefix(INSTANCE_PREFIX)
            if pid != folder.name and pid.isdigit() and not Path(f"/proc/{pid}").exists():
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _mount_tracefs() -> int:
    """Mount tracefs at no path. Returns a descriptor of its root. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    context = _checked(libc.syscall(_FSOPEN, b"tracefs", _FSOPEN_CLOEXEC))
    try:
        _checked(libc.syscall(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0))
        return _checked(libc.syscall(_FSMOUNT, context, _FSMOUNT_CLOEXEC, _MOUNT_ATTR_NOSUID_NODEV_NOEXEC))
    finally:
        os.close(context)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="ascii")
