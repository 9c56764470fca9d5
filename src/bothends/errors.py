"""What can go wrong, split by who must act.

    BothendsError
    ├── CallerError              whoever called us must ask for something else   (exit 2)
    │   ├── EndpointError            an endpoint that cannot be read or used so
    │   ├── PortsError               words that name no ports
    │   ├── UnknownName              a service, engine or option nobody knows
    │   ├── CannotCarry              an engine, service and endpoint that don't go together
    │   ├── ConfigurationError       a configuration file that cannot be understood
    │   ├── ToxicError               a toxic that cannot be, or not there
    │   ├── WireError                hosts that cannot be joined so
    │   └── ServiceError             a service of the user's that cannot be loaded or misbehaved
    ├── PeerError                the other end broke a rule or went away         (exit 1)
    │   ├── ConnectionLost           reset, or closed in the middle
    │   ├── HandshakeFailed          TLS, or a proxy's header, came to nothing
    │   ├── StreamBroken             what wraps the stream met bytes that don't belong to it
    │   ├── MessageTooLong           a message over the agreed limit
    │   └── TimeLimit                nothing came in time                        (exit 124)
    └── SystemRefused            the system said no to a call                    (exit 1)
        └── Unavailable              what this needs isn't here                  (exit 69)

Rank 0: imports the standard library only. Errors carry fields; `__str__` builds the sentence,
which says what was tried, what the system answered, and what to do next. A system call's
error is translated once, where the call is made, and stays reachable as `__cause__`.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Final

# The process (EMFILE) or the system (ENFILE) has no file descriptor left (open(2), accept(2)).
OUT_OF_DESCRIPTORS: Final = frozenset({_errno.EMFILE, _errno.ENFILE})

# The same for any kernel resource: the call may succeed later, once some have been released (accept(2)).
OUT_OF_RESOURCES: Final = OUT_OF_DESCRIPTORS | {_errno.ENOBUFS, _errno.ENOMEM}


class BothendsError(Exception):
    """Base of every error that bothends raises on purpose.

    `exit_status` is what the command line leaves with when the error ends it
    (sysexits.h for 69; 124 as timeout(1)).
    """

    exit_status: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Of those that have fields: `args`, as every exception has them (and is pickled by them)."""
        self.args = tuple(getattr(self, each.name) for each in fields(self))  # type: ignore[arg-type]


class UsageError(BothendsError):
    """The caller asked for something that cannot be: ask for something else."""

    exit_status = 2


@dataclass(eq=False, repr=False)
class EndpointError(UsageError):
    """An endpoint that cannot be read, or cannot be used in this way.

    Fields: `text` (the endpoint as it was given), `reason`, `hint` (what to try; may be empty).
    """

    text: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(f"endpoint {self.text!r}: {self.reason}", self.hint)


@dataclass(eq=False, repr=False)
class PortSpecError(UsageError):
    """Words that name no ports.

    Fields: `text` (as it was given), `reason`, `hint`.
    """

    text: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(f"ports {self.text!r}: {self.reason}", self.hint)


@dataclass(eq=False, repr=False)
class UnknownName(UsageError):
    """A name that no table holds.

    Fields: `kind` ("service", "engine", ...), `name`, `nearest` (the likeliest known name, or
    empty), `hint` (where the known ones are listed).
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
    """An engine, a service and an endpoint that don't go together.

    Fields: `who` (the one that refuses), `what` (what it was given), `reason`, `hint`.
    """

    component: str
    target: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(f"{self.component} cannot carry {self.target}: {self.reason}", self.hint)


@dataclass(eq=False, repr=False)
class ConfigurationError(UsageError):
    """A configuration file that cannot be understood.

    Fields: `file`, `table` and `key` (empty where it is about the whole), `reason`, `hint`.
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
    """A toxic that cannot be as it is asked for, or not where it is asked for.

    Fields: `toxic` (its name or type), `reason`, `hint`.
    """

    toxic: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(f"toxic {self.toxic}: {self.reason}", self.hint)


@dataclass(eq=False, repr=False)
class TopologyError(UsageError):
    """Hosts that cannot be joined as it was asked for.

    Fields: `what`, `reason`, `hint` (may be empty).
    """

    subject: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(f"wire: {self.subject}: {self.reason}", self.hint)


@dataclass(eq=False, repr=False)
class ServiceError(UsageError):
    """A user's service that cannot be loaded, or that broke the contract of a service.

    Fields: `name`, `reason`, `hint`.
    """

    name: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(f"service {self.name}: {self.reason}", self.hint)


class PeerError(BothendsError):
    """The other end broke a rule, or went away."""


@dataclass(eq=False, repr=False)
class ConnectionLost(PeerError):
    """The connection ended before the exchange did.

    Fields: `where` (the endpoint), `doing`, `errno` (0 when the peer closed in good order).
    """

    target: str
    operation: str
    errno: int = 0

    def __str__(self) -> str:
        how = errno_text(self.errno) if self.errno else "the peer closed the connection"
        return f"connection to {self.target} lost while {self.operation}: {how}"


@dataclass(eq=False, repr=False)
class HandshakeFailed(PeerError):
    """What wraps a stream could not begin: no TLS, or none that both want; no PROXY header to believe.

    Fields: `where` (the endpoint, or the peer's address), `reason` (in words; what it quotes of the peer
    is escaped), `hint` (may be empty).
    """

    target: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(f"handshake with {self.target} failed: {self.reason}", self.hint)


@dataclass(eq=False, repr=False)
class ProtocolViolation(PeerError):
    """What wraps a stream met bytes that don't belong to it, or an end that it doesn't allow.

    Fields: `where` (the endpoint, or the peer's address), `reason` (in words, escaped where it quotes).
    """

    target: str
    reason: str

    def __str__(self) -> str:
        return f"stream from {self.target} broken: {self.reason}"


@dataclass(eq=False, repr=False)
class MessageTooLong(PeerError):
    """A message passed the limit before it ended.

    Fields: `limit` and `size` in bytes (`size` is what had arrived when it was given up, or what
    was announced), `before` (the messages that the same chunk completed before it).
    """

    limit: int
    size: int
    completed_messages: Sequence[bytes] = ()

    def __str__(self) -> str:
        return f"a message of {self.size} bytes or more, and the limit is {self.limit}"


@dataclass(eq=False, repr=False)
class TimeoutExpired(PeerError):
    """Nothing came in time.

    Fields: `where` (the endpoint), `doing`, `seconds` (the limit that passed), `hint`.
    """

    exit_status = 124

    target: str
    operation: str
    seconds: float
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(
            f"{self.target}: time limit of {self.seconds:g} s passed while {self.operation}", self.hint
        )


@dataclass(eq=False, repr=False)
class SystemCallFailed(BothendsError):
    """A system call that failed.

    Fields: `doing` ("bind", "connect", ...), `where` (the endpoint), `errno`, `hint`.
    """

    operation: str
    target: str
    errno: int
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(f"cannot {self.operation} {self.target}: {errno_text(self.errno)}", self.hint)


@dataclass(eq=False, repr=False)
class Unavailable(SystemCallFailed):
    """What this needs isn't here: a socket family, a library, a program.

    Fields as for SystemRefused, and `reason`, which speaks where there is no errno.
    """

    exit_status = 69

    operation: str
    target: str
    errno: int = 0
    hint: str = ""
    reason: str = ""

    def __str__(self) -> str:
        answer = self.reason or errno_text(self.errno)
        return _sentence(f"cannot {self.operation} {self.target}: {answer}", self.hint)


def errno_text(number: int) -> str:
    """`ECONNREFUSED (Connection refused)`: the errno's name, then the system's words."""
    name = _errno.errorcode.get(number, str(number))
    return f"{name} ({os.strerror(number)})"


def _sentence(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
