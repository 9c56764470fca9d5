"""The messages that a contract allows, and the correct reply to each. Pure.

An `ExpectedReply` is the correct reply to one message on the wire: exact bytes, or a pattern if the reply
cannot be known in advance (a clock).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bothends.check.patterns import compile_pattern, match_whole
from bothends.check.transcript import quote_bytes
from bothends.endpoints import Address
from bothends.errors import ServiceError
from bothends.framing import Framing
from bothends.services.base import Peer, Service, discard_push

_PLACEHOLDER_ADDRESS: Final = Address("inet", "127.0.0.1")
_MAX_PATTERN_REPLY: Final = 1 << 20  # bytes: reading stops here if the length is unknown


@dataclass(frozen=True, slots=True)
class ExpectedReply:
    """A correct reply: `exact` bytes, or any bytes that `pattern` matches as a whole, or none (`silent`).

    `example` matches the pattern; `until_eof`: the reply ends at EOF.
    """

    exact: bytes = b""
    pattern: re.Pattern[bytes] | None = None
    silent: bool = False
    example: bytes = b""
    until_eof: bool = False

    def matches(self, data: bytes) -> bool:
        """Whether `data` is the whole reply.

        Raises:
            PatternTooSlow: the pattern takes too long.
        """
        return match_whole(self.pattern, data) is not None if self.pattern else data == self.exact

    @property
    def sample(self) -> bytes:
        """A reply to send when the checker plays the server: the exact one, or the pattern's example."""
        return self.example if self.pattern else self.exact

    def is_prefix(self, data: bytes) -> bool:
        """Whether `data` may be the beginning of the reply."""
        return len(data) < _MAX_PATTERN_REPLY if self.pattern else self.exact.startswith(data)

    def __str__(self) -> str:
        if self.silent:
            return "no reply"
        if self.pattern:
            return f"a reply that matches /{self.pattern.pattern.decode('utf-8', 'replace')}/"
        return quote_bytes(self.exact)

    @staticmethod
    def concatenate(replies: Sequence[ExpectedReply]) -> ExpectedReply:
        """Return the concatenation of one or more replies."""
        sent = [each for each in replies if not each.silent]
        if len(sent) <= 1:
            return sent[0] if sent else replies[0]
        if not any(each.pattern for each in sent):
            return ExpectedReply(b"".join(each.exact for each in sent))
        parts = [each.pattern.pattern if each.pattern else re.escape(each.exact) for each in sent]
        return ExpectedReply(pattern=compile_pattern(b"".join(b"(?:%b)" % part for part in parts)))


class Oracle(ABC):
    """The source of correct replies. Messages are given without their framing."""

    accepts_any_message: bool = True
    """Any message is allowed, not only those in `messages`."""

    exact_replies: bool = True
    """Replies are known exactly, and depend on the message."""

    messages: Sequence[bytes] = ()
    """The allowed messages, if not any message is."""

    @abstractmethod
    def reply(self, message: bytes) -> ExpectedReply:
        """Return the correct reply to a message, with its framing.

        Raises:
            ServiceError: the user's function or service failed.
        """


class FunctionOracle(Oracle):
    """Replies are the results of a function, which may be None. `name` names it in errors."""

    def __init__(
        self, function: Callable[[bytes], bytes | None], framing: Framing | None, name: str = ""
    ) -> None:
        self._function = function
        self._framing = framing
        self._name = name

    def reply(self, message: bytes) -> ExpectedReply:
        """Return the correct reply.

        Raises:
            ServiceError: the function raised an exception, or did not return bytes.
        """
        try:
            answer = self._function(message)
        except Exception as error:
            raise ServiceError(self._name, f"for {message[:40]!r} it raised {error!r}") from error
        if answer is None:
            return ExpectedReply(silent=True)
        if not isinstance(answer, bytes):
            raise ServiceError(self._name, f"it returned {type(answer).__name__}", "a reply must be bytes")
        return ExpectedReply(self._framing.encode(answer) if self._framing else answer)


class ServiceOracle(Oracle):
    """Replies are those of a bothends service, to the framed bytes on a stream or to a datagram."""

    def __init__(self, service: Service, framing: Framing | None, *, stream: bool, half_closes: bool) -> None:
        self._service = service
        self._framing = framing
        self._stream = stream
        self._half_closes = half_closes  # the client sends one message and shuts down its write side

    def reply(self, message: bytes) -> ExpectedReply:
        peer = Peer(_PLACEHOLDER_ADDRESS, _PLACEHOLDER_ADDRESS, message_oriented=not self._stream)
        if not self._stream:
            answer = self._service.answer(message, peer)
            return ExpectedReply(silent=True) if answer is None else ExpectedReply(answer)
        conversation = self._service.open(peer, discard_push)
        reply = conversation.start()
        if not conversation.done:
            reply += conversation.receive(self._framing.encode(message) if self._framing else message)
        if self._half_closes and not conversation.done:
            reply += conversation.end()
        conversation.closed()
        return ExpectedReply(reply)


class TableOracle(Oracle):
    """Replies to a fixed list of messages."""

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
    """No message has a reply."""

    exact_replies = False

    def reply(self, message: bytes) -> ExpectedReply:
        return ExpectedReply(silent=True)
