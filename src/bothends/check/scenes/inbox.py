"""What a client has received, and whether it is what a scene expects. Pure.

With a framing, or datagrams, a text is compared with a whole message: with headers, its start line, the
fields that the text names, and its body. Without framing, it is compared with the beginning of the stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from bothends.check.case import FunctionError
from bothends.check.header_framing import HeaderDecoder, HeaderFraming, HeaderMessage, comparable_text
from bothends.check.scenes.template import TextError, TextTemplate
from bothends.check.transcript import MAX_QUOTED_BYTES, quote_bytes
from bothends.errors import MessageTooLong
from bothends.escaping import escape, escape_text
from bothends.framing import FixedSize, Framing

MAX_PENDING: Final = 16 << 20  # bytes: far above the texts of a scene; some wrong programs never stop

_M = TypeVar("_M")


@dataclass(frozen=True, slots=True)
class TextMatch:
    """A received text that is expected. `index`: of the text; `values`: those that it remembers."""

    index: int
    values: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class WrongMessage:
    """A received message that is not expected. `reason`: what is wrong with it, if that is known."""

    data: bytes
    reason: str = ""

    def __str__(self) -> str:
        return f"{quote_bytes(self.data)}{f': {self.reason}' if self.reason else ''}"


def match_message(
    message: bytes, expected: Sequence[TextTemplate], values: Mapping[str, bytes]
) -> TextMatch | WrongMessage:
    """Return the first expected text that matches the whole of a message, or why none does."""
    reason = ""
    for index, text in enumerate(expected):
        if text.checker is not None:
            reason = _check(text, message, values)
            if not reason:
                return TextMatch(index, {})
            continue
        found = text.match_whole(message, values)
        if found is not None:
            return TextMatch(index, found)
        if len(expected) == 1 and not text.captures:
            reason = describe_difference(text.render(values), message)
    return WrongMessage(message, reason)


def _check(text: TextTemplate, message: bytes, values: Mapping[str, bytes]) -> str:
    """Return what the function of a text says against a message, or an empty string."""
    assert text.checker is not None
    try:
        found = text.checker(message, dict(values))
    except Exception as error:
        raise FunctionError(getattr(text.checker, "__name__", "checker"), f"raised {error!r}") from error
    return (
        "" if found is None or found is True else "it is wrong" if found is False else escape_text(str(found))
    )


def match_header_message(
    message: HeaderMessage,
    expected: Sequence[TextTemplate],
    values: Mapping[str, bytes],
    ignored: frozenset[bytes] = frozenset(),
) -> TextMatch | WrongMessage:
    """Return the first expected text whose start line, fields and body a message has, or why none does."""
    reasons = []
    for index, text in enumerate(expected):
        if text.checker is not None:
            reason = _check(text, message.raw, values)
            if not reason:
                return TextMatch(index, {})
            reasons.append(reason)
            continue
        found = _compare_headers(message, text, values, ignored)
        if not isinstance(found, str):
            return TextMatch(index, found)
        reasons.append(found)
    return WrongMessage(message.raw, reasons[0] if len(reasons) == 1 else "")


def _compare_headers(
    message: HeaderMessage, text: TextTemplate, values: Mapping[str, bytes], ignored: frozenset[bytes]
) -> dict[str, bytes] | str:
    """Return the values that a text remembers of a message, or the difference."""
    (start_line, *fields), body = text.split_head()
    remembered = start_line.match_whole(message.start_line, values)
    if remembered is None:
        return f'its first line is "{escape(message.start_line[:200])}"'
    all_values = dict(remembered)
    for field in fields:
        name, value = split_field(field)
        if name.lower() in ignored:
            continue
        given = message.values(name)
        matches = (value.match_whole(each, values) for each in given)
        found = next((each for each in matches if each is not None), None)
        if found is None:
            shown = " and ".join(f'"{escape(each[:200])}"' for each in given)
            return f"its {name.decode()} is {shown}" if given else f"it has no {name.decode()}"
        all_values |= found
    if body is not None:
        found = body.match_whole(message.body, values)
        if found is None:
            known = "" if body.captures else describe_difference(body.render(values), message.body)
            return f"its body is {quote_bytes(message.body)}{f', {known}' if known else ''}"
        all_values |= found
    return all_values


def split_field(line: TextTemplate) -> tuple[bytes, TextTemplate]:
    """Split a line `NAME: VALUE` of a text.

    Raises:
        TextError: it does not begin with a name and a colon.
    """
    first = line.parts[0]
    name, colon, rest = first.partition(b":") if isinstance(first, bytes) else (b"", b"", b"")
    if not colon or not name or b" " in name:
        shown = first.decode("utf-8", "replace") if isinstance(first, bytes) else "a placeholder"
        raise TextError(f"{shown!r} is not a field NAME: VALUE", r"write the body after an empty line: \n\n")
    rest = rest.lstrip(b" ")
    value = ((rest,) if rest else ()) + line.parts[1:]
    return name, TextTemplate(value or (b"",))


def describe_difference(expected: bytes, received: bytes) -> str:
    """Return where long data differs, or an empty string if that is seen at its beginning."""
    at = next(
        (n for n, (one, other) in enumerate(zip(expected, received, strict=False)) if one != other),
        min(len(expected), len(received)),
    )
    if at < MAX_QUOTED_BYTES // 2:
        return ""
    if at == len(received):
        return f"only the first {at:,} of {len(expected):,} bytes"
    around = slice(max(0, at - 8), at + 16)
    instead = f" instead of {quote_bytes(expected[around])}" if at < len(expected) else ""
    return f"which differs from byte {at:,} on: {quote_bytes(received[around])}{instead}"


class Inbox(ABC):
    """The received data that no step has taken yet."""

    @abstractmethod
    def feed(self, data: bytes) -> None:
        """Take a chunk of a stream, or a datagram."""

    @abstractmethod
    def take(
        self,
        expected: Sequence[TextTemplate],
        values: Mapping[str, bytes],
        *,
        final: bool,
        eventually: bool = False,
    ) -> TextMatch | WrongMessage | None:
        """Take one of the expected texts. Returns None if more data is needed.

        Args:
            final: nothing more is received for now, so a pattern that could match more ends here.
            eventually: skip what precedes the text.
        """

    @abstractmethod
    def take_any(self) -> bytes | None:
        """Take the next text, whatever it is, or on a stream without framing all that has arrived."""

    def request_sent(self, message: bytes) -> None:
        """Note a message that was sent on the connection, on which the form of its reply may depend."""

    def end(self) -> None:
        """Take the end of the stream, which may end a message."""

    @property
    def missing(self) -> str:
        """What is missing of a message of which a part is pending, or an empty string."""
        return "without the end of the message" if self.has_only_part else ""

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


class _QueuedInbox(Inbox, Generic[_M]):
    """Whole messages in a queue, and those that were skipped before a text that is expected eventually."""

    def __init__(self) -> None:
        self._messages: deque[_M] = deque()
        self._skipped: deque[bytes] = deque(maxlen=100)

    @abstractmethod
    def _match(
        self, message: _M, expected: Sequence[TextTemplate], values: Mapping[str, bytes]
    ) -> TextMatch | WrongMessage:
        """Compare a message with the expected texts."""

    @abstractmethod
    def _invalid(self) -> WrongMessage | None:
        """Return the unfinished message if it is invalid."""

    def _is_optional(self, message: _M) -> bool:
        """Whether a message may come although no text is expected."""
        return False

    def take(
        self,
        expected: Sequence[TextTemplate],
        values: Mapping[str, bytes],
        *,
        final: bool,
        eventually: bool = False,
    ) -> TextMatch | WrongMessage | None:
        while self._messages:
            message = self._messages.popleft()
            found = self._match(message, expected, values)
            if isinstance(found, TextMatch) or not (eventually or self._is_optional(message)):
                self._skipped.clear()
                return found
            self._skipped.append(found.data)
        return self._invalid()


class MessageInbox(_QueuedInbox[bytes]):
    """Messages with a framing, or datagrams if it is None.

    `repeats`: the last message that was expected may arrive again at any time.
    """

    def __init__(self, framing: Framing | None, *, repeats: bool = False) -> None:
        super().__init__()
        self._repeats = repeats
        self._last: bytes | None = None  # the message that was expected last
        self._decoder = framing.decoder() if framing else None
        self._padding = framing.padding if isinstance(framing, FixedSize) else b""
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
                pad = self._padding
                self._messages.extend(each.rstrip(pad) if pad else each for each in completed)
                self._unfinished.clear()

    def take_any(self) -> bytes | None:
        return self._messages.popleft() if self._messages else None

    def _match(
        self, message: bytes, expected: Sequence[TextTemplate], values: Mapping[str, bytes]
    ) -> TextMatch | WrongMessage:
        found = match_message(message, expected, values)
        if isinstance(found, TextMatch):
            self._last = message
        return found

    def _is_optional(self, message: bytes) -> bool:
        return self._repeats and message == self._last

    def _invalid(self) -> WrongMessage | None:
        return WrongMessage(bytes(self._unfinished)) if self._too_long else None

    @property
    def pending(self) -> bytes:
        unfinished = [bytes(self._unfinished)] if self._unfinished else []
        messages = (each for each in (*self._skipped, *self._messages) if not self._is_optional(each))
        return b"\n".join([*messages, *unfinished])

    @property
    def too_much(self) -> bool:
        return sum(map(len, self._messages)) + len(self._unfinished) > MAX_PENDING

    @property
    def is_empty(self) -> bool:
        messages = (*self._skipped, *self._messages)
        return not self._unfinished and all(map(self._is_optional, messages))

    @property
    def has_only_part(self) -> bool:
        return not self._messages and bool(self._unfinished)

    def discard(self) -> None:
        self._messages.clear()
        self._skipped.clear()
        self._unfinished.clear()


class HeaderInbox(_QueuedInbox[HeaderMessage]):
    """Messages with a head and a body. `ignored`: names of fields, in lower case, that are not compared."""

    def __init__(self, ignored: frozenset[bytes] = frozenset()) -> None:
        super().__init__()
        self._ignored = ignored
        self._decoder = HeaderDecoder()

    def feed(self, data: bytes) -> None:
        self._messages += self._decoder.feed(data)

    def request_sent(self, message: bytes) -> None:
        self._decoder.request_sent(message)

    def end(self) -> None:
        self._messages += self._decoder.end()

    def take_any(self) -> bytes | None:
        return comparable_text(self._messages.popleft()) if self._messages else None

    def _match(
        self, message: HeaderMessage, expected: Sequence[TextTemplate], values: Mapping[str, bytes]
    ) -> TextMatch | WrongMessage:
        return match_header_message(message, expected, values, self._ignored)

    def _is_optional(self, message: HeaderMessage) -> bool:
        # A client must be able to receive interim responses (RFC 9110, section 15.2).
        return 100 <= message.status < 200 and message.status != 101

    def _invalid(self) -> WrongMessage | None:
        return WrongMessage(self._decoder.unfinished, self._decoder.error) if self._decoder.error else None

    @property
    def pending(self) -> bytes:
        return b"".join([*self._skipped, *(each.raw for each in self._messages), self._decoder.unfinished])

    @property
    def has_only_part(self) -> bool:
        return not self._messages and bool(self._decoder.unfinished)

    @property
    def missing(self) -> str:
        return self._decoder.describe_unfinished()

    def discard(self) -> None:
        self._messages.clear()
        self._skipped.clear()
        self._decoder = HeaderDecoder()


class StreamInbox(Inbox):
    """A stream without framing.

    With `delimited`, a text that ends with a literal or a fixed size is complete as soon as it matches.
    """

    def __init__(self, *, delimited: bool = False) -> None:
        self._delimited = delimited
        self._received = b""

    def feed(self, data: bytes) -> None:
        self._received += data

    def take(
        self,
        expected: Sequence[TextTemplate],
        values: Mapping[str, bytes],
        *,
        final: bool,
        eventually: bool = False,
    ) -> TextMatch | WrongMessage | None:
        possible = eventually
        # After the text of which only a part was received, the rest would be taken for another one.
        for skipped in range(len(self._received) if eventually else 1):
            received = self._received[skipped:]
            for index, text in enumerate(expected):
                start = text.literal_start(values)
                common = min(len(start), len(received))
                if start[:common] != received[:common]:
                    continue
                possible = True
                found = text.match_start(received, values)
                if found is None:
                    continue
                certain = self._delimited and text.has_certain_end
                if final or not text.captures or certain or found[0] < len(received):
                    self._received = received[found[0] :]
                    return TextMatch(index, found[1])
        if possible:
            return None
        reason = describe_difference(expected[0].literal_start(values), self._received)
        return WrongMessage(self._received, reason if len(expected) == 1 else "")

    def take_any(self) -> bytes | None:
        received, self._received = self._received, b""
        return received or None

    @property
    def pending(self) -> bytes:
        return self._received

    def discard(self) -> None:
        self._received = b""

    def skip_line_end(self) -> None:
        """Remove one end of a line from the beginning."""
        self._received = self._received.removeprefix(b"\r").removeprefix(b"\n")


def make_inbox(
    framing: Framing | None,
    *,
    datagrams: bool,
    delimited: bool,
    of_client: bool = False,
    repeats: bool = False,
) -> Inbox:
    """Return an inbox for a client, or a connection, with a contract's framing.

    Args:
        framing: the framing of a stream, or None.
        datagrams: messages are datagrams.
        delimited: texts without framing delimit themselves.
        repeats: the last datagram that was expected may arrive again.
        of_client: the messages are those of a client under test, which knows the server by another name.
    """
    if datagrams:
        return MessageInbox(None, repeats=repeats)
    if isinstance(framing, HeaderFraming):
        return HeaderInbox(frozenset({b"host"}) if of_client else frozenset())
    return MessageInbox(framing) if framing else StreamInbox(delimited=delimited)
