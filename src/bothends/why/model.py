"""What a snapshot holds: threads, processes and sockets, as values. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from bothends.osutil.blocked_calls import BlockedCall, CallKind
from bothends.socket_table import SocketEntry

# Seconds that a thread must have been off the processor before its wait counts. A thread that moves data is
# caught inside a blocking call most of the time, but never for long.
SETTLED_SECONDS: Final = 0.5


@dataclass(slots=True)
class ObservedThread:
    """A thread of a process that has sockets.

    `name` is its comm, escaped. `state` is the letter of /proc/PID/stat: R, S, D, T, ... `call` is None if
    the thread runs, or if the call is not readable. `idle`: seconds since it last ran, None if unknown.
    `source`: the line of a Python program, if it is known.
    """

    pid: int
    tid: int
    name: str
    state: str
    call: BlockedCall | None = None
    readable: bool = True
    idle: float | None = None
    source: str = ""

    @property
    def is_settled(self) -> bool:
        """Whether it has been blocked long enough for its wait to count."""
        return self.state in "SD" and self.call is not None and (self.idle or 0.0) >= SETTLED_SECONDS

    @property
    def is_stopped(self) -> bool:
        """Whether a signal or a debugger has stopped it."""
        return self.state in "Tt"

    @property
    def is_in_accept(self) -> bool:
        """Whether it waits in accept(2) itself, not in a poll that includes a listener."""
        return self.call is not None and self.call.name == "accept"

    def waits_for_inode(self, inode: int) -> bool:
        """Whether its call waits for this socket."""
        return self.call is not None and any(wait.inode == inode for wait in self.call.waits)


@dataclass(slots=True)
class ObservedProcess:
    """A process that has sockets. `name` is that of its script or program, escaped.

    `files`: the other descriptors that its threads wait for, and what each refers to, as /proc/PID/fd has it.
    `open_files` and `file_limit` are None if they are not readable.
    """

    pid: int
    name: str
    threads: list[ObservedThread] = field(default_factory=list)
    files: dict[int, str] = field(default_factory=dict)
    open_files: int | None = None
    file_limit: int | None = None

    @property
    def is_readable(self) -> bool:
        """Whether the calls of all its threads are known."""
        return bool(self.threads) and all(thread.readable for thread in self.threads)

    @property
    def is_stopped(self) -> bool:
        """Whether it is stopped, as by ^Z."""
        return any(thread.is_stopped for thread in self.threads)

    def __str__(self) -> str:
        return f"{self.name}[{self.pid}]"


@dataclass(slots=True)
class KernelLimits:
    """The sysctls that problems refer to, of our network namespace (ip-sysctl of the kernel)."""

    first_port: int = 32_768
    last_port: int = 60_999
    retries: int = 15  # tcp_retries2
    connect_retries: int = 6  # tcp_syn_retries
    linear_connect_retries: int = 0  # tcp_syn_linear_timeouts, Linux 6.5


@dataclass(slots=True)
class Snapshot:
    """Everything that was read, once. `notes`: one line for each kind of missing information."""

    sockets: list[SocketEntry] = field(default_factory=list)
    processes: dict[int, ObservedProcess] = field(default_factory=dict)
    limits: KernelLimits = field(default_factory=KernelLimits)
    notes: list[str] = field(default_factory=list)

    def threads(self) -> list[ObservedThread]:
        """Return the threads of all processes."""
        return [thread for process in self.processes.values() for thread in process.threads]


def ends_by_itself(call: BlockedCall, *, limits_wake: bool = True) -> bool:
    """Whether a call has a time limit, or waits for something that is not a descriptor or a thread."""
    return (
        (limits_wake and call.timeout is not None)
        or call.kind in (CallKind.TIME, CallKind.OTHER)
        or not call.complete
    )
