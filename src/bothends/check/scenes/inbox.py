"""What a client has received, and whether it is what a scene expects. Pure.

With a framing, or datagrams, a text is compared with a whole message. Without framing, it is compared with
the beginning of the stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bothends.check.patterns import match_start, match_whole
from bothends.check.scenes.template import TextTemplate
from bothends.errors import MessageTooLong
from bothends.framing import FixedSize, Framing

MAX_PENDING: Final = 16 << 20  # bytes: far above the texts of a scene; some wrong programs never stop


@dataclass(frozen=True, slots=True)
class TextMatch:
    """A received text that is expected. `index`: of the text; `values`: those that it remembers."""

    index: int
    values: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class WrongMessage:
    """A received message that is not expected."""

    data: bytes


def match_message(
    message: bytes, expected: Sequence[TextTemplate], values: Mapping[str, bytes]
) -> TextMatch | None:
    """Return the first expected text that matches the whole of a message."""
    for index, text in enumerate(expected):
        if found := match_whole(text.compile(values), message):
            return TextMatch(index, found.groupdict())
    return None


class Inbox(ABC):
    """The received data that no step has taken yet."""

    @abstractmethod
    def feed(self, data: bytes) -> None:
        """Take a chunk of a stream, or a datagram."""

    @abstractmethod
    def take(
        self, expected: Sequence[TextTemplate], values: Mapping[str, bytes], *, final: bool
    ) -> TextMatch | WrongMessage | None:
        """Take one of the expected texts. Returns None if more data is needed.

        Args:
            final: nothing more is received for now, so a pattern that could match more ends here.
        """

    @property
    @abstractmethod
    def pending(self) -> bytes:
        """The data that is not taken, with what was received of an unfinished message."""

    @abstractmethod
    def discard(self) -> None:
        """Forget the data that is not taken."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is pending. An empty datagram is something without bytes."""
        return not self.pending

    @property
    def has_only_part(self) -> bool:
        """Whether only the beginning of a message is pending."""
        return False

    @property
    def too_much(self) -> bool:
        """Whether more is pending than any scene expects."""
        return len(self.pending) > MAX_PENDING


class MessageInbox(Inbox):
    """Messages with a framing, or datagrams if it is None."""

    def __init__(self, framing: Framing | None) -> None:
        self._decoder = framing.decoder() if framing else None
        self._padded = isinstance(framing, FixedSize)
        self._messages: deque[bytes] = deque()
        self._unfinished = bytearray()
        self._too_long = False

    def feed(self, data: bytes) -> None:
        if self._decoder is None:
            self._messages.append(data)
            return
        for at in range(len(data)):  # bytewise, to know which bytes belong to the unfinished message
            if self._too_long:
                return
            self._unfinished.append(data[at])
            try:
                completed = self._decoder.feed(data[at : at + 1])
            except MessageTooLong:
                self._too_long = True
                return
            if completed:
                self._messages.extend(each.rstrip(b"\0") if self._padded else each for each in completed)
                self._unfinished.clear()

    def take(
        self, expected: Sequence[TextTemplate], values: Mapping[str, bytes], *, final: bool
    ) -> TextMatch | WrongMessage | None:
        if self._messages:
            message = self._messages.popleft()
            return match_message(message, expected, values) or WrongMessage(message)
        return WrongMessage(bytes(self._unfinished)) if self._too_long else None

    @property
    def pending(self) -> bytes:
        return b"\n".join([*self._messages, *([bytes(self._unfinished)] if self._unfinished else [])])

    @property
    def too_much(self) -> bool:
        return sum(map(len, self._messages)) + len(self._unfinished) > MAX_PENDING

    @property
    def is_empty(self) -> bool:
        return not self._messages and not self._unfinished

    @property
    def has_only_part(self) -> bool:
        return not self._messages and bool(self._unfinished)

    def discard(self) -> None:
        self._messages.clear()
        self._unfinished.clear()


class StreamInbox(Inbox):
    """A stream without framing."""

    def __init__(self) -> None:
        self._received = b""

    def feed(self, data: bytes) -> None:
        self._received += data

    def take(
        self, expected: Sequence[TextTemplate], values: Mapping[str, bytes], *, final: bool
    ) -> TextMatch | WrongMessage | None:
        possible = False
        for index, text in enumerate(expected):
            start = text.literal_start(values)
            common = min(len(start), len(self._received))
            if start[:common] != self._received[:common]:
                continue
            possible = True
            found = match_start(text.compile(values), self._received)
            if found and (final or not text.captures or found.end() < len(self._received)):
                self._received = self._received[found.end() :]
                return TextMatch(index, found.groupdict())
        return None if possible else WrongMessage(self._received)

    @property
    def pending(self) -> bytes:
        return self._received

    def discard(self) -> None:
        self._received = b""

    def skip_line_end(self) -> None:
        """Remove one end of a line from the beginning."""
        self._received = self._received.removeprefix(b"\r").removeprefix(b"\n")
