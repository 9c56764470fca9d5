"""Read which call each thread of a traced program is blocked in, from /proc.

strace prints the arguments of recv() and epoll_wait() only when they end, and no calls on locks. So a
snapshot is taken whenever nothing moves: it completes the calls that are not finished. Programs that bothends
has started may be read, because they are its descendants (ptrace(2), "Ptrace access mode checking").
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bothends.osutil.blocked_calls import BlockedCall, RawCall, call_name, decode, parse_syscall
from bothends.osutil.process_memory import read_memory
from bothends.trace.model import Call

MAX_THREADS: Final = 1000  # read in one snapshot

_MACHINE: Final = os.uname().machine
_MSG_FLAGS: Final = {0x2: "MSG_PEEK", 0x40: "MSG_DONTWAIT", 0x100: "MSG_WAITALL"}  # bits/socket.h
_WITH_SIZE: Final = {"read", "write", "recvfrom", "sendto"}  # the size is the third argument


@dataclass(frozen=True, slots=True)
class ThreadSnapshot:
    """What a thread was blocked in: its process (a number of the trace), and the call."""

    process: int
    thread: int
    raw: RawCall
    call: BlockedCall

    @property
    def name(self) -> str:
        """The name of the call; "" if it is unknown."""
        return call_name(self.raw, _MACHINE)

    def complete(self, call: Call) -> None:
        """Add arguments that strace has not shown yet: sizes, flags and time limits."""
        if self.name != call.name:
            return
        arguments = self.raw.arguments
        if call.requested is None and self.name in _WITH_SIZE and len(arguments) > 2:
            call.requested = arguments[2]
        if self.name == "recvfrom" and len(arguments) > 3:
            call.flags |= {name for bit, name in _MSG_FLAGS.items() if arguments[3] & bit}
        if call.timeout_ns is None and self.call.timeout is not None:
            call.timeout_ns = round(self.call.timeout * 1e9)


def read_thread(process: int, pid: int, thread: int) -> ThreadSnapshot | None:
    """Return what a thread is blocked in; None if it runs, has exited or may not be read."""
    try:
        raw = parse_syscall(Path(f"/proc/{pid}/task/{thread}/syscall").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    if raw is None or raw.number < 0:
        return None

    def memory(address: int, length: int) -> bytes:
        return read_memory(pid, address, length)

    def interest(descriptor: int) -> str:
        with contextlib.suppress(OSError, ValueError):
            return Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text(encoding="ascii")
        return ""

    return ThreadSnapshot(process, thread, raw, decode(raw, _MACHINE, memory, interest))
