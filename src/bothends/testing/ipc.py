"""Messages from the process that runs an engine to the harness.

Each report is one message on a SOCK_SEQPACKET pair, and the kernel keeps messages whole. So every process and
thread of an engine can report on the same descriptor, and EOF means that the last process has exited. Events
are sent between the other reports.
"""

from __future__ import annotations

import dataclasses
import functools
import pickle
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from bothends.endpoints import Endpoint
from bothends.engines.base import Limits
from bothends.errors import UnsupportedCombination
from bothends.events import Event, Received, Sent, ServiceFailed
from bothends.layers import TlsSettings
from bothends.services.base import Service

# Bytes of each Received and Sent that are sent, because a message must fit into the socket's buffer. Tests
# that check every byte use the client's end.
MAX_DATA_SIZE: Final = 4096

# Bytes: larger than any report. The longest ones have lists of descriptors or a traceback.
MAX_REPORT_SIZE: Final = 128 * 1024

ServiceMaker: TypeAlias = Callable[[], Service]


@dataclass(frozen=True, slots=True)
class RunSpec:
    """An engine to run, and with what. Must be picklable, so `service` is a class, a function of a module, or
    a functools.partial of one."""

    engine: str
    service: ServiceMaker
    endpoints: Sequence[str]
    limits: Limits
    observe: bool = True
    start_paused: bool = False
    tls: TlsSettings | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """The sockets are bound, and the engine is about to run."""

    endpoints: Sequence[Endpoint]


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """The handler of this signal, which drains or aborts, has run."""

    signal: int


@dataclass(frozen=True, slots=True)
class Leftovers:
    """`run()` has returned. Resources that it has left open: descriptors, by target; threads and processes,
    by name."""

    descriptors: Sequence[str] = ()
    threads: Sequence[str] = ()
    processes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Crashed:
    """`run()`, or its preparation, raised. `unsupported` is set if the engine rejected the spec."""

    traceback: str
    unsupported: UnsupportedCombination | None = None


Report: TypeAlias = Event | Ready | SignalReceived | Leftovers | Crashed


def send(sock: socket.socket, report: Report) -> None:
    """Send a report. Blocks while the socket's buffer is full; does nothing if the harness has exited."""
    try:
        sock.send(pickle.dumps(_truncated(report)))
    except (BrokenPipeError, ConnectionResetError):
        return


def receive(sock: socket.socket) -> Report | None:
    """Receive the next report; None at EOF."""
    data = sock.recv(MAX_REPORT_SIZE)
    return pickle.loads(data) if data else None


def observer(sock: socket.socket) -> Callable[[Event], None]:
    """Create an observer that sends every event to `sock`."""
    return functools.partial(send, sock)


def _truncated(report: Report) -> Report:
    if isinstance(report, Received | Sent) and len(report.data) > MAX_DATA_SIZE:
        return dataclasses.replace(report, data=report.data[:MAX_DATA_SIZE])
    if isinstance(report, ServiceFailed) and not _is_picklable(report.error):
        return dataclasses.replace(report, error=RuntimeError(repr(report.error)))
    return report


def _is_picklable(value: Any) -> bool:
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:
        return False
    return True
