"""Read threads, processes and sockets once, from /proc and the socket table.

What the kernel shows, and to which users:

1. /proc/PID/task/TID/syscall and process_vm_readv(2) are readable for a process that may trace the other one
   (PTRACE_MODE_ATTACH, ptrace(2)); nothing is attached. With kernel.yama.ptrace_scope=1 that is root only.
2. /proc/PID/task/TID/sched has the time at which the thread last ran, on its processor's scheduler clock. It
   needs CONFIG_SCHED_DEBUG. Without it, the threads' switch counts are compared over a short time instead.
3. /proc/PID/task/TID/wchan has the kernel function that the thread sleeps in: not enough to know the
   descriptor, but enough to name the wait.
4. The time limits of sockets (SO_RCVTIMEO, SO_SNDTIMEO) take a duplicate of the descriptor (pidfd_getfd(2)),
   which is closed at once and changes nothing: see `socket_table.options`. Only threads that are blocked in
   recv(), send(), accept() or connect() are concerned.

The parts are read one after another. What moves in between is not blocked, and does not count: see
`ObservedThread.is_settled`.
"""

from __future__ import annotations

import dataclasses
import os
import re
import resource
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from bothends.escaping import escape
from bothends.osutil.blocked_calls import BlockedCall, CallKind, DescriptorWait, Need, decode, parse_syscall
from bothends.osutil.process_info import children, read_stat, thread_ids
from bothends.osutil.process_memory import read_memory
from bothends.socket_table import SocketOwner, read_table
from bothends.socket_table.options import read_timeouts
from bothends.why.model import SETTLED_SECONDS, KernelLimits, ObservedProcess, ObservedThread, Snapshot

_INTERPRETERS: Final = re.compile(r"(python|pypy|node|perl|ruby|php|bash|dash|sh|zsh|uwsgi)[\d.]*")
_LAST_RAN: Final = re.compile(rb"^se\.exec_start\s*:\s*([\d.]+)", re.MULTILINE)
_SWITCHES: Final = re.compile(rb"^(?:non)?voluntary_ctxt_switches:\s*(\d+)", re.MULTILINE)
_SETTLING_SECONDS: Final = SETTLED_SECONDS + 0.05  # only where the kernel has no `sched` files
_MAX_AWAITED: Final = 8  # children of a shell that are followed: a forking server waits for hundreds
_PROCESSOR_FIELD: Final = 37  # of read_stat(): field 39 of proc_pid_stat(5)


def take_snapshot(
    skipped: Iterable[int] = (), also: Iterable[int] = (), only: Sequence[int] = ()
) -> Snapshot:
    """Read every socket of this machine, and the threads of each process that has one.

    `skipped`: processes that are left out, such as the caller. `also`: processes that are read even if they
    have no socket. `only`: if there are any, no other processes are read, nor their sockets.
    """
    table = read_table(only, with_options=False, with_ownerless=True)
    also = [*also, *only]
    own = set(skipped)
    snapshot = Snapshot(table.sockets, limits=_read_limits(), notes=list(table.notes))
    by_pid: dict[int, dict[int, int]] = {pid: {} for pid in also}
    for entry in table.sockets:
        if own and entry.owners:
            entry.owners = [owner for owner in entry.owners if owner.pid not in own]
        for owner in entry.owners:
            by_pid.setdefault(owner.pid, {})[owner.fd] = entry.inode
    clocks = scheduler_clocks()
    for pid, inodes in by_pid.items():
        process = read_process(pid, inodes, clocks)
        if process.threads:
            snapshot.processes[pid] = process
    unknown = [thread for thread in snapshot.threads() if thread.idle is None and thread.call is not None]
    if unknown:
        _measure_idle(unknown)
    for thread in snapshot.threads():
        if thread.is_settled:
            _read_socket_timeout(thread)
    blind = sum(not process.is_readable for process in snapshot.processes.values())
    if blind:
        snapshot.notes.append(
            f"the calls of {blind:,} process{'' if blind == 1 else 'es'} are not readable: run as root to see"
            " what their threads wait for"
        )
    return snapshot


def read_process(pid: int, inodes: dict[int, int], clocks: dict[int, float]) -> ObservedProcess:
    """Read a process and its threads. `inodes`: those of its sockets, by descriptor."""
    process = ObservedProcess(pid, program_name(pid))
    reader = _CallReader(process, inodes)
    for tid in thread_ids(pid):
        if stat := read_stat(pid, tid):
            process.threads.append(_read_thread(reader, pid, tid, stat, clocks))
    process.open_files = _count_descriptors(pid)
    process.file_limit = _descriptor_limit(pid)
    return process


def awaited_children(pid: int) -> list[int]:
    """Return the processes that a process waits for in wait4(2), as a shell does, and those they wait for."""
    found = [pid]
    for each in found:  # grows during the walk
        for tid in thread_ids(each):
            if _wait_channel(f"/proc/{each}/task/{tid}") == "do_wait":
                found += children(each, tid)[: max(0, _MAX_AWAITED + 1 - len(found))]
    return found[1:]


def program_name(pid: int) -> str:
    """Return the name of a process's script or program, escaped; "" if the process has exited."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        comm = Path(f"/proc/{pid}/comm").read_bytes().removesuffix(b"\n")
    except OSError:
        return ""
    return escape(os.fsencode(name_from_command([os.fsdecode(word) for word in words], os.fsdecode(comm))))


def name_from_command(words: list[str], comm: str) -> str:
    """Choose the name of a process: the script of an interpreter, the class of a Java program, its comm."""
    program = os.path.basename(words[0]) if words else ""  # noqa: PTH119
    rest = words[1:]
    if program == "java":
        skip_next = False
        for word in rest:
            if skip_next or word.startswith("-"):
                skip_next = word in ("-cp", "-classpath", "--class-path", "-p", "--module-path")
                continue
            return os.path.basename(word).rpartition(".")[2] if "/" not in word else os.path.basename(word)  # noqa: PTH119
    if not _INTERPRETERS.fullmatch(program):
        return comm
    while rest and rest[0].startswith("-"):
        if rest[0] == "-m" and len(rest) > 1:
            return rest[1]
        if rest[0] in ("-c", "-e", "-"):
            return comm
        del rest[: 2 if rest[0] in ("-W", "-X") else 1]
    return os.path.basename(rest[0]) or comm if rest else comm  # noqa: PTH119


class _CallReader:
    """Decode the calls of one process. Interest lists are read once, because threads share them."""

    def __init__(self, process: ObservedProcess, inodes: dict[int, int]) -> None:
        self._process = process
        self._inodes = inodes
        self._sockets = set(inodes.values())
        self._texts: dict[int, str] = {}
        self._machine = os.uname().machine

    def call(self, text: str) -> BlockedCall | None:
        raw = parse_syscall(text)
        if raw is None:
            return None
        call = decode(raw, self._machine, self._memory, self._interest)
        if not call.waits:
            return call
        waits = tuple(self._resolve(wait) for wait in call.waits)
        return dataclasses.replace(call, waits=waits)

    def _resolve(self, wait: DescriptorWait) -> DescriptorWait:
        """Fill in the inode of a socket, or read what another descriptor refers to."""
        if wait.inode in self._sockets and wait.inode:
            return wait
        inode = self._inodes.get(wait.fd, 0)
        if inode and wait.inode in (0, inode):
            return DescriptorWait(wait.fd, wait.need, inode, wait.edge)
        if wait.fd not in self._process.files:
            try:
                target = os.readlink(f"/proc/{self._process.pid}/fd/{wait.fd}")  # noqa: PTH115
            except OSError:
                target = ""
            self._process.files[wait.fd] = escape(os.fsencode(target))
        return wait

    def _memory(self, address: int, length: int) -> bytes:
        return read_memory(self._process.pid, address, length)

    def _interest(self, fd: int) -> str:
        if fd not in self._texts:
            try:
                self._texts[fd] = Path(f"/proc/{self._process.pid}/fdinfo/{fd}").read_text(encoding="ascii")
            except (OSError, ValueError):
                self._texts[fd] = ""
        return self._texts[fd]


def _read_thread(
    reader: _CallReader, pid: int, tid: int, stat: list[str], clocks: dict[int, float]
) -> ObservedThread:
    folder = f"/proc/{pid}/task/{tid}"
    thread = ObservedThread(pid, tid, escape(os.fsencode(stat[0])), stat[1])
    try:
        thread.call = reader.call(_read(f"{folder}/syscall").decode("ascii"))
    except FileNotFoundError:
        thread.state = "X"
    except (OSError, ValueError):
        thread.readable = False
        thread.call = _call_from_wchan(folder) if thread.state in "SD" else None
    # The processor that the thread last ran on. The scheduler chooses another when it wakes the thread.
    clock = clocks.get(int(stat[_PROCESSOR_FIELD]))
    if clock is not None:
        thread.idle = _idle(folder, clock)
    return thread


def _call_from_wchan(folder: str) -> BlockedCall | None:
    """Return a call that is named by the kernel function it sleeps in."""
    name = _wait_channel(folder)
    if name is None:
        return None
    return BlockedCall(f"{name} (kernel)" if name not in ("", "0") else "", CallKind.OTHER, complete=False)


def _wait_channel(folder: str) -> str | None:
    """Return the kernel function that a thread sleeps in, "0" if it runs; None if that is not readable."""
    try:
        return _read(f"{folder}/wchan").decode("ascii")
    except (OSError, ValueError):
        return None


def _idle(folder: str, clock: float) -> float | None:
    try:
        found = _LAST_RAN.search(_read(f"{folder}/sched"))
    except OSError:
        return None
    return max(0.0, clock - float(found[1])) / 1000 if found else None


def scheduler_clocks() -> dict[int, float]:
    """Return the time of each processor's scheduler clock in milliseconds; empty if the kernel shows none.

    The clock is `rq_clock_task` (kernel/sched): it leaves out interrupts and the time that a hypervisor took,
    so the processors of a virtual machine differ by seconds. A thread that has just moved to a processor has
    that clock's time, so the calling thread visits each one.
    """
    allowed = os.sched_getaffinity(0)
    found = {}
    try:
        for processor in allowed:
            os.sched_setaffinity(0, {processor})
            match = _LAST_RAN.search(_read("/proc/thread-self/sched"))
            if match is None:
                return {}
            found[processor] = float(match[1])
    except OSError:
        pass  # no such file, or a processor that the control group has taken away meanwhile
    finally:
        os.sched_setaffinity(0, allowed)
    return found


def _read_socket_timeout(thread: ObservedThread) -> None:
    """Add the time limit of the socket that a thread is blocked on."""
    call = thread.call
    if call is None or not call.direct or len(call.waits) != 1 or not call.waits[0].inode:
        return
    (wait,) = call.waits
    timeouts = read_timeouts(SocketOwner(thread.pid, "", wait.fd))
    if timeouts is None:
        thread.call = dataclasses.replace(call, option=None)
        return
    sends = wait.need in (Need.SPACE, Need.PEER)
    if seconds := timeouts[sends]:
        option = "SO_SNDTIMEO" if sends else "SO_RCVTIMEO"
        thread.call = dataclasses.replace(call, timeout=seconds, option=option)


def _measure_idle(threads: list[ObservedThread]) -> None:
    """Set the idle time of each thread that does not run for a while: a lower bound."""
    started = time.monotonic()
    counts = {thread.tid: _switches(thread) for thread in threads}
    time.sleep(_SETTLING_SECONDS)
    elapsed = time.monotonic() - started
    for thread in threads:
        thread.idle = elapsed if counts[thread.tid] == _switches(thread) != [] else 0.0


def _switches(thread: ObservedThread) -> list[bytes]:
    try:
        return _SWITCHES.findall(_read(f"/proc/{thread.pid}/task/{thread.tid}/status"))
    except OSError:
        return []


def _count_descriptors(pid: int) -> int | None:
    try:
        # Linux 6.2 gives the number as the size of the folder.
        size = os.stat(f"/proc/{pid}/fd").st_size  # noqa: PTH116
        return size or len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
    except OSError:
        return None


def _descriptor_limit(pid: int) -> int | None:
    try:
        soft, _ = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    except OSError:
        return None
    return soft if soft != resource.RLIM_INFINITY else None


def _read_limits() -> KernelLimits:
    limits = KernelLimits()
    folder = Path("/proc/sys/net/ipv4")
    try:
        first, last = (folder / "ip_local_port_range").read_text(encoding="ascii").split()
        limits.first_port, limits.last_port = int(first), int(last)
        limits.retries = int((folder / "tcp_retries2").read_text(encoding="ascii"))
        limits.connect_retries = int((folder / "tcp_syn_retries").read_text(encoding="ascii"))
        linear = (folder / "tcp_syn_linear_timeouts").read_text(encoding="ascii")
        limits.linear_connect_retries = int(linear)
    except (OSError, ValueError):
        return limits  # an older kernel lacks the last ones
    return limits


def _read(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, 1 << 16)
    finally:
        os.close(file)
