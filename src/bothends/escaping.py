r"""Bytes from a peer, made safe to show: `escape` for a piece that is whole, `Escaper` for a stream.

Rank 0, pure. What a peer sends may hold sequences that move the cursor, change the window's title,
fake what stands on another line, or can't be seen at all. So:

1. What can be seen stays: every character that `str.isprintable` calls printable, decoded as UTF-8.
2. ASCII controls and bytes that are no UTF-8 are written as `\xNN`, and the three that everyone knows
   as `\n`, `\r` and `\t`.
3. Any other character that can't be seen or that changes how its neighbours are seen (C1 controls,
   bidirectional overrides, zero-width and other ignorable characters, odd spaces, what Unicode has
   not assigned) is written by its number: `\u{202e}`.
4. A backslash is doubled. So what is shown says exactly which bytes came: no peer can send four
   characters that look like an escaped control, and no two inputs look the same.

Where lines are shown as lines, the caller cuts them first, or asks the `Escaper` to keep their ends.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

_SHORT_ESCAPES: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}

# Printable for `isprintable`, as they are letters or marks, and yet they show nothing: the rest of
# Default_Ignorable_Code_Point (Unicode, DerivedCoreProperties.txt). Tags and variation selectors can
# carry whole hidden messages.
_INVISIBLE: Final = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
)
_INVISIBLE_CHARACTER: Final = re.compile(f"[{_INVISIBLE}]")
_NEEDS_ESCAPING: Final = re.compile(f"[\\\\{_INVISIBLE}]")


def escape(data: bytes) -> str:
    """The bytes as text that is safe on a terminal, in a log and on a page of text, on one line."""
    return escape_text(data.decode("utf-8", "surrogateescape"))


def escape_text(text: str) -> str:
    """As `escape`, for text that is decoded already; lone surrogates stand for bytes (PEP 383)."""
    if text.isprintable() and not _NEEDS_ESCAPING.search(text):
        return text
    return "".join(map(_escape_character, text))


def _escape_character(character: str) -> str:
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    if character.isprintable() and not _INVISIBLE_CHARACTER.match(character):
        return character
    number = ord(character)
    if number < 0x80:
        return f"\\x{number:02x}"
    if 0xDC80 <= number <= 0xDCFF:  # surrogateescape: a byte that is no UTF-8
        return f"\\x{number - 0xDC00:02x}"
    return f"\\u{{{number:x}}}"


class Escaper:
    r"""`escape` for a stream that comes in chunks, keeping what makes its lines.

    LF and TAB stay as they are, and so does the end of a line as CR LF, which becomes LF; any other CR
    is shown, for it would let later text overwrite what stands on the line. How the stream is cut
    into chunks changes nothing in what all of them give together.
    """

    __slots__ = ("_decoder", "_pending")

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._pending = ""  # a CR that may be half of CR LF

    def feed(self, data: bytes) -> str:
        """What can be shown now. A character that the chunk cuts waits for its rest."""
        return self._escape_lines(self._decoder.decode(data), final=False)

    def end(self) -> str:
        """What was still waiting, at the end of the stream."""
        return self._escape_lines(self._decoder.decode(b"", final=True), final=True)

    def _escape_lines(self, text: str, *, final: bool) -> str:
        text = self._pending + text
        self._pending = ""
        if not final and text.endswith("\r"):
            text, self._pending = text[:-1], "\r"
        lines = text.replace("\r\n", "\n").split("\n")
        return "\n".join("\t".join(map(escape_text, line.split("\t"))) for line in lines)
