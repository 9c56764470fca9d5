"""Which messages a contract lets us ask, and which replies are right. Pure.

A `Reply` is what should come back on the wire for one message: exact bytes, or a pattern where the right
answer can't be known beforehand (a clock's).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bothends.check.transcript import quote_bytes
from bothends.endpoints import Address
from bothends.errors import ServiceError
from bothends.framing import Framing
from bothends.services.base import Peer, Service, discard_push

_PLACEHOLDER_ADDRESS: Final = Address("inet", "127.0.0.1")
_MAX_PATTERN_REPLY: Final = 1 << 20  # bytes: a reply without a known length is read no further


@dataclass(frozen=True, slots=True)
class ExpectedReply:
    """What should come: `exact` bytes, or what fits `pattern` as a whole, or nothing at all (`silent`).

    `example` is something that fits the pattern; `to_end`: the end of the connection is the reply's end.
    """

    exact: bytes = b""
    pattern: re.Pattern[bytes] | None = None
    silent: bool = False
    example: bytes = b""
    until_eof: bool = False

    def matches(self, data: bytes) -> bool:
        """Whether this is it, whole."""
        return self.pattern.fullmatch(data) is not None if self.pattern else data == self.exact

    @property
    def sample(self) -> bytes:
        """Such a reply, for a server that we play: the exact one, or what stands for the pattern."""
        return self.example if self.pattern else self.exact

    def is_prefix(self, data: bytes) -> bool:
        """Whether more bytes could make it right."""
        return len(data) < _MAX_PATTERN_REPLY if self.pattern else self.exact.startswith(data)

    def __str__(self) -> str:
        if self.silent:
            return "no reply"
        if self.pattern:
            return f"what fits /{self.pattern.pattern.decode('utf-8', 'replace')}/"
        return quote_bytes(self.exact)

    @staticmethod
    def concatenate(replies: Sequence[ExpectedReply]) -> ExpectedReply:
        """All of them, one after the other; at least one."""
        said = [each for each in replies if not each.silent]
        if len(said) <= 1:
            return said[0] if said else replies[0]
        if not any(each.pattern for each in said):
            return ExpectedReply(b"".join(each.exact for each in said))
        parts = [each.pattern.pattern if each.pattern else re.escape(each.exact) for each in said]
        return ExpectedReply(pattern=re.compile(b"".join(b"(?:%b)" % part for part in parts), re.DOTALL))


class Oracle(ABC):
    """Knows the right reply to a message. Messages are without their framing."""

    accepts_any_message: bool = True
    """Any message can be asked, not only those of a list."""

    exact_replies: bool = True
    """Replies are known to the byte, and differ with the message."""

    messages: Sequence[bytes] = ()
    """The messages that can be asked, where not any."""

    @abstractmethod
    def reply(self, message: bytes) -> ExpectedReply:
        """What is right for one message, framed as it goes over the wire."""


class FunctionOracle(Oracle):
    """The reply is what a function makes of the message. `name` is what it is called in an error."""

    def __init__(
        self, function: Callable[[bytes], bytes | None], framing: Framing | None, name: str = ""
    ) -> None:
        self._function = function
        self._framing = framing
        self._name = name

    def reply(self, message: bytes) -> ExpectedReply:
        """See Answers. Raises ServiceError: the function raises something, or gives no bytes."""
        try:
            answer = self._function(message)
        except Exception as error:
            raise ServiceError(self._name, f"for {message[:40]!r} it raises {error!r}") from error
        if answer is None:
            return ExpectedReply(silent=True)
        if not isinstance(answer, bytes):
            raise ServiceError(self._name, f"it gives {type(answer).__name__}", "a reply is bytes")
        return ExpectedReply(self._framing.encode(answer) if self._framing else answer)


class ServiceOracle(Oracle):
    """The reply is what a service of ours says: on a stream to the framed bytes, else to the datagram."""

    def __init__(self, service: Service, framing: Framing | None, *, stream: bool, half_closes: bool) -> None:
        self._service = service
        self._framing = framing
        self._stream = stream
        self._half_closes = half_closes  # the client has finished after one message

    def reply(self, message: bytes) -> ExpectedReply:
        peer = Peer(_PLACEHOLDER_ADDRESS, _PLACEHOLDER_ADDRESS, message_oriented=not self._stream)
        if not self._stream:
            answer = self._service.answer(message, peer)
            return ExpectedReply(silent=True) if answer is None else ExpectedReply(answer)
        conversation = self._service.open(peer, discard_push)
        said = conversation.start()
        if not conversation.done:
            said += conversation.receive(self._framing.encode(message) if self._framing else message)
        if self._half_closes and not conversation.done:
            said += conversation.end()
        conversation.closed()
        return ExpectedReply(said)


class TableOracle(Oracle):
    """The replies to a list of messages."""

    accepts_any_message = False

    def __init__(self, table: dict[bytes, ExpectedReply]) -> None:
        self._table = table
        self.messages = list(table)
        self.exact_replies = not any(reply.pattern for reply in table.values())

    def reply(self, message: bytes) -> ExpectedReply:
        return self._table[message]


class PatternOracle(Oracle):
    """One pattern for every reply."""

    exact_replies = False

    def __init__(self, pattern: re.Pattern[bytes], example: bytes = b"") -> None:
        self._reply = ExpectedReply(pattern=pattern, example=example)

    def reply(self, message: bytes) -> ExpectedReply:
        return self._reply


class SilentOracle(Oracle):
    """Nothing is ever answered."""

    exact_replies = False

    def reply(self, message: bytes) -> ExpectedReply:
        return ExpectedReply(silent=True)
