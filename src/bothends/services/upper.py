"""`upper`: answers in capitals. The service to read first: this is all that a service is.

A client of the classroom sends a few bytes without a newline, reads once and prints what it got. So
every chunk is answered at once, as far as it goes: there is no line or message to wait for, only the
rest of a character that was cut in the middle. `é` is two bytes in UTF-8 and may come in two chunks.

1. Whatever way the bytes are cut into chunks, the answers joined are the answer to the whole.
2. What is not UTF-8 (RFC 3629) comes back as it was: a buffer padded with zeros, a picture, anything.
3. Capitals are Unicode's full mapping, which looks at one character at a time; it may change the
   length: `ß` becomes `SS`.
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
    """One peer's text. `whole`: no chunk goes on in the next one, so nothing is held back."""

    __slots__ = ("_message_oriented", "_partial")

    def __init__(self, *, message_oriented: bool) -> None:
        self._message_oriented = message_oriented
        self._partial = b""  # the beginning of a character: three bytes at most

    def receive(self, data: bytes) -> bytes:
        if not self._partial and data.isascii():
            return data.upper()
        data = self._partial + data
        # "surrogateescape" carries each byte that is no UTF-8 through `upper` unchanged (PEP 383).
        text, used = utf_8_decode(data, "surrogateescape", self._message_oriented)
        self._partial = data[used:]
        if b"\xed\xa0" <= self._partial <= b"\xed\xbf":
            # Half of a UTF-16 pair. UTF-8 has none, yet Python's decoder waits for a third byte.
            text += self._partial.decode("utf-8", "surrogateescape")
            self._partial = b""
        return text.upper().encode("utf-8", "surrogateescape")

    def end(self) -> bytes:
        return self._partial
