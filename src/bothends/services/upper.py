"""`upper`: answers in capitals. The service to read first, because it is a complete service in a few lines.

A classroom client sends a few bytes without a newline, reads once and prints the result. So each chunk is
answered at once. There is no line or message to wait for, only the rest of a character that was cut in the
middle: `é` is two bytes in UTF-8 and may arrive in two chunks.

1. The joined output does not depend on how the input is cut into chunks.
2. Bytes that are not UTF-8 (RFC 3629) are returned unchanged: a buffer padded with zeros, a picture,
   anything.
3. Capitals are Unicode's full case mapping, one character at a time; it may change the length: `ß` becomes
   `SS`.
"""

from __future__ import annotations

from codecs import utf_8_decode

from bothends.services.base import Conversation, Peer, Push, Service


class Upper(Service):
    """Answers in capitals."""

    name = "upper"
    summary = "answers in capitals, chunk by chunk (UTF-8)"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _UpperConversation(message_oriented=peer.message_oriented)

    def answer(self, datagram: bytes, peer: Peer) -> bytes:
        return _UpperConversation(message_oriented=True).receive(datagram)


class _UpperConversation(Conversation):
    """Convert one peer's text. With `message_oriented` each chunk is complete, so nothing is held back."""

    __slots__ = ("_message_oriented", "_partial")

    def __init__(self, *, message_oriented: bool) -> None:
        self._message_oriented = message_oriented
        self._partial = b""  # the first bytes of an incomplete character, three at most

    def receive(self, data: bytes) -> bytes:
        if not self._partial and data.isascii():
            return data.upper()
        data = self._partial + data
        # "surrogateescape" passes each invalid byte through `upper` unchanged (PEP 383).
        text, used = utf_8_decode(data, "surrogateescape", self._message_oriented)
        self._partial = data[used:]
        if b"\xed\xa0" <= self._partial <= b"\xed\xbf":
            # Half of a surrogate pair: invalid in UTF-8, but Python's decoder waits for a third byte.
            text += self._partial.decode("utf-8", "surrogateescape")
            self._partial = b""
        return text.upper().encode("utf-8", "surrogateescape")

    def end(self) -> bytes:
        return self._partial
