"""The exceptions of bothends, split by the party that must act.

    BothendsError
    ├── UsageError                   the caller must ask for something else      (exit 2)
    │   ├── EndpointError                an endpoint that is invalid, or invalid here
    │   ├── PortSpecError                an invalid port specification
    │   ├── UnknownName                  an unknown service, engine or option
    │   ├── UnsupportedCombination       an engine, service and endpoint that cannot be combined
    │   ├── ConfigurationError           an invalid configuration file
    │   ├── ToxicError                   an invalid toxic, or one its proxy does not support
    │   ├── TopologyError                hosts that a wire cannot join
    │   └── ServiceError                 a user's service that cannot be loaded or misbehaved
    ├── PeerError                    the peer violated a protocol or left        (exit 1)
    │   ├── ConnectionLost               reset, or closed too early
    │   ├── HandshakeFailed              no TLS session, or no valid PROXY header
    │   ├── ProtocolViolation            invalid bytes or a premature end in TLS or a framing
    │   ├── MessageTooLong               a message over the size limit
    │   └── TimeoutExpired               no completion in time                   (exit 124)
    └── SystemCallFailed             the kernel reported an error                (exit 1)
        └── Unavailable                  something required is missing           (exit 69)

Rank 0: imports the standard library only. Errors carry fields; `__str__` builds the sentence, with the failed
operation, the kernel's answer and what to try next. An error of a system call is translated once, where the
call is made, and stays available as `__cause__`.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Final

__all__ = [
    "OUT_OF_DESCRIPTORS",
    "OUT_OF_RESOURCES",
    "BothendsError",
    "ConfigurationError",
    "ConnectionLost",
    "EndpointError",
    "HandshakeFailed",
    "MessageTooLong",
    "PeerError",
    "PortSpecError",
    "ProtocolViolation",
    "ServiceError",
    "SystemCallFailed",
    "TimeoutExpired",
    "TopologyError",
    "ToxicError",
    "Unavailable",
    "UnknownName",
    "UnsupportedCombination",
    "UsageError",
    "errno_text",
]

# The process (EMFILE) or the system (ENFILE) has no file descriptor left (open(2), accept(2)).
OUT_OF_DESCRIPTORS: Final = frozenset({_errno.EMFILE, _errno.ENFILE})

# The same for any kernel resource: the call may succeed later, once some have been released (accept(2)).
OUT_OF_RESOURCES: Final = OUT_OF_DESCRIPTORS | {_errno.ENOBUFS, _errno.ENOMEM}


class BothendsError(Exception):
    """Base class of all errors that bothends raises on purpose.

    `exit_status` is the exit status of the command line if the error ends it (69 from sysexits.h; 124 as
    timeout(1)).
    """

    exit_status: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Set `args` to the fields, because pickle recreates exceptions from `args`."""
        self.args = tuple(getattr(self, each.name) for each in fields(self))  # type: ignore[arg-type]


class UsageError(BothendsError):
    """The caller asked for something impossible, and must ask for something else."""

    exit_status = 2


@dataclass(eq=False, repr=False)
class EndpointError(UsageError):
    """An endpoint cannot be parsed, or cannot be used in this way.

    Fields: `text` (the endpoint as given), `reason`, `hint` (what to try; may be empty).
    """

    text: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(f"endpoint {self.text!r}: {self.reason}", self.hint)


@dataclass(eq=False, repr=False)
class PortSpecError(UsageError):
    """An invalid port specification.

    Fields: `text` (as given), `reason`, `hint`.
    """

    text: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(f"ports {self.text!r}: {self.reason}", self.hint)


@dataclass(eq=False, repr=False)
class UnknownName(UsageError):
    """An unknown name.

    Fields: `kind` ("service", "engine", ...), `name`, `nearest` (the most similar known name, or empty),
    `hint` (how to list the known names).
    """

    kind: str
    name: str
    nearest: str = ""
    hint: str = ""

    def __str__(self) -> str:
        guess = f"did you mean {self.nearest!r}?" if self.nearest else ""
        return _sentence(f"there is no {self.kind} {self.name!r}", guess, self.hint)


@dataclass(eq=False, repr=False)
class UnsupportedCombination(UsageError):
    """An engine, a service and an endpoint cannot be combined.

    Fields: `component` (the part without support), `target` (what it does not support), `reason`, `hint`.
    """

    component: str
    target: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(f"{self.component} does not support {self.target}: {self.reason}", self.hint)


@dataclass(eq=False, repr=False)
class ConfigurationError(UsageError):
    """An invalid configuration file.

    Fields: `file`, `table` and `key` (empty if the error is about the whole file or table), `reason`, `hint`.
    """

    file: str
    table: str
    key: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        where = ", ".join(filter(None, (self.file, self.table, self.key and f"key {self.key!r}")))
        return _sentence(f"{where}: {self.reason}", self.hint)


@dataclass(eq=False, repr=False)
class ToxicError(UsageError):
    """An invalid toxic, or one that its proxy or wire does not support.

    Fields: `toxic` (its name or type), `reason`, `hint`.
    """

    toxic: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(f"toxic {self.toxic}: {self.reason}", self.hint)


@dataclass(eq=False, repr=False)
class TopologyError(UsageError):
    """Hosts that cannot be joined by a wire, or a host that does not exist.

    Fields: `subject`, `reason`, `hint` (may be empty).
    """

    subject: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(f"wire: {self.subject}: {self.reason}", self.hint)


@dataclass(eq=False, repr=False)
class ServiceError(UsageError):
    """A user's service cannot be loaded, or has violated the service contract.

    Fields: `name`, `reason`, `hint`.
    """

    name: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(f"service {self.name}: {self.reason}", self.hint)


class PeerError(BothendsError):
    """The peer violated a protocol, did not answer in time, or closed the connection."""


@dataclass(eq=False, repr=False)
class ConnectionLost(PeerError):
    """The connection ended before the exchange was complete.

    Fields: `target` (the endpoint), `operation`, `errno` (0 if the peer closed the connection with a FIN).
    """

    target: str
    operation: str
    errno: int = 0

    def __str__(self) -> str:
        reason = errno_text(self.errno) if self.errno else "the peer closed the connection"
        return f"connection to {self.target} lost while {self.operation}: {reason}"


@dataclass(eq=False, repr=False)
class HandshakeFailed(PeerError):
    """A TLS handshake failed, or a PROXY header is missing, invalid or not trusted.

    Fields: `target` (the endpoint, or the peer's address), `reason` (text; bytes of the peer are escaped),
    `hint` (may be empty).
    """

    target: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(f"handshake with {self.target} failed: {self.reason}", self.hint)


@dataclass(eq=False, repr=False)
class ProtocolViolation(PeerError):
    """The peer sent invalid bytes in a TLS or framed stream, or ended it prematurely.

    Fields: `target` (the endpoint, or the peer's address), `reason` (text; bytes of the peer are escaped).
    """

    target: str
    reason: str

    def __str__(self) -> str:
        return f"protocol violation by {self.target}: {self.reason}"


@dataclass(eq=False, repr=False)
class MessageTooLong(PeerError):
    """A message exceeds the size limit.

    Fields: `limit` and `size` in bytes (`size` is the number of bytes received so far, or the announced
    length), `completed_messages` (the messages that the same chunk completed before it).
    """

    limit: int
    size: int
    completed_messages: Sequence[bytes] = ()

    def __str__(self) -> str:
        return f"a message of at least {self.size} bytes exceeds the limit of {self.limit}"


@dataclass(eq=False, repr=False)
class TimeoutExpired(PeerError):
    """An operation did not complete in time.

    Fields: `target` (the endpoint), `operation`, `seconds` (the timeout), `hint`.
    """

    exit_status = 124

    target: str
    operation: str
    seconds: float
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(
            f"{self.target}: timed out after {self.seconds:g} s while {self.operation}", self.hint
        )


@dataclass(eq=False, repr=False)
class SystemCallFailed(BothendsError):
    """A system call failed.

    Fields: `operation` ("bind", "connect", ...), `target` (the endpoint), `errno`, `hint`.
    """

    operation: str
    target: str
    errno: int
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(f"cannot {self.operation} {self.target}: {errno_text(self.errno)}", self.hint)


@dataclass(eq=False, repr=False)
class Unavailable(SystemCallFailed):
    """Something required is not available: a socket family, a library, a program, a permission.

    Fields as for SystemCallFailed, and `reason`, which replaces the errno text if it is not empty.
    """

    exit_status = 69

    operation: str
    target: str
    errno: int = 0
    hint: str = ""
    reason: str = ""

    def __str__(self) -> str:
        reason = self.reason or errno_text(self.errno)
        return _sentence(f"cannot {self.operation} {self.target}: {reason}", self.hint)


def errno_text(number: int) -> str:
    """Return the name and description of an errno, such as `ECONNREFUSED (Connection refused)`."""
    name = _errno.errorcode.get(number, str(number))
    return f"{name} ({os.strerror(number)})"


def _sentence(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
