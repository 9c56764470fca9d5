"""What a process that runs an engine tells the one that watches it.

Each report is one message on a SOCK_SEQPACKET pair, which the kernel keeps whole whoever sends: so
every process and thread of an engine may report on the same descriptor, and its end of file says
that the last of them is gone. Events travel as they are, between the other reports.
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

# How much of each Received and Sent is passed on: a message has to fit into the socket's buffer,
# and who wants to see every byte looks at the client's end.
MAX_DATA_SIZE: Final = 4096

# More than any report: names of descriptors and tracebacks are what can make one long.
MAX_REPORT_SIZE: Final = 128 * 1024

ServiceMaker: TypeAlias = Callable[[], Service]


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What to run. It must survive pickling: `service` is a class, a module's function, or a
    functools.partial of one."""

    engine: str
    service: ServiceMaker
    endpoints: Sequence[str]
    limits: Limits
    observe: bool = True
    start_paused: bool = False
    tls: TlsSettings | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """Bound, and about to run."""

    endpoints: Sequence[Endpoint]


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """The order to drain, or to abort, has been taken: this signal."""

    signal: int


@dataclass(frozen=True, slots=True)
class Leftovers:
    """`run()` has come back. What was still there then that had not been there before: descriptors
    (by what they refer to), threads and processes (by name)."""

    descriptors: Sequence[str] = ()
    threads: Sequence[str] = ()
    processes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Crashed:
    """`run()`, or what comes before it, raised. `refusal` where the engine said that it can't carry it."""

    traceback: str
    unsupported: UnsupportedCombination | None = None


Report: TypeAlias = Event | Ready | SignalReceived | Leftovers | Crashed


def send(sock: socket.socket, report: Report) -> None:
    """Pass a report on. Blocks while the watcher is behind; does nothing when it is gone."""
    try:
        sock.send(pickle.dumps(_truncated(report)))
    except (BrokenPipeError, ConnectionResetError):
        return


def receive(sock: socket.socket) -> Report | None:
    """The next report; None when nobody is left to send one."""
    data = sock.recv(MAX_REPORT_SIZE)
    return pickle.loads(data) if data else None


def observer(sock: socket.socket) -> Callable[[Event], None]:
    """An observer that passes every event on."""
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
