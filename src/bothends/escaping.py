r"""Escape bytes of a peer for display: `escape` for complete data, `Escaper` for a stream.

Rank 0, pure. A peer may send sequences that move the cursor, change the window's title, imitate another line,
or are invisible. So:

1. Visible characters stay: all that `str.isprintable` accepts, decoded as UTF-8.
2. ASCII control characters and invalid UTF-8 bytes are written as `\xNN`; LF, CR and TAB as `\n`, `\r`
   and `\t`.
3. Any other character that is invisible or changes how its neighbours are displayed (C1 controls,
   bidirectional overrides, zero-width and other ignorable characters, unusual spaces, unassigned code points)
   is written by its number: `\u{202e}`.
4. A backslash is doubled. So the output determines the bytes: no peer can send four characters that look like
   an escaped control character, and no two inputs have the same output.

To show lines as lines, the caller splits them first, or uses an `Escaper`, which keeps their ends.

Text is escaped by these functions where it enters. Every output (`cli/terminal.py`, `log`, `foreign_text.py`
for pages and files) passes its text through `escape_controls` or `escape_line` again, which leave escaped
text unchanged: a text that was overlooked is still harmless there, only no longer reversible.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

__all__ = ["Escaper", "escape", "escape_controls", "escape_line", "escape_text"]

_SHORT_ESCAPES: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}

# Letters and marks that `isprintable` accepts although they are invisible: the rest of
# Default_Ignorable_Code_Point (Unicode, DerivedCoreProperties.txt). Tags and variation selectors can hide
# whole messages.
_INVISIBLE: Final = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
)
_INVISIBLE_CHARACTER: Final = re.compile(f"[{_INVISIBLE}]")
_NOT_PLAIN: Final = re.compile("[^\t\n\x20-\x7e]+")  # everything but printable ASCII, TAB and LF
_NOT_SIMPLE: Final = re.compile(r"[^\x20-\x5b\x5d-\x7e]+")  # all but printable ASCII, and the backslash
_NEEDS_ESCAPING: Final = re.compile(f"[\\\\{_INVISIBLE}]")


def escape(data: bytes) -> str:
    """Return bytes as one line of text that is safe on a terminal, in a log and in a text file."""
    return escape_text(data.decode("utf-8", "surrogateescape"))


def escape_text(text: str) -> str:
    """Escape decoded text as `escape` does bytes. Lone surrogates represent bytes (PEP 383)."""
    if text.isprintable() and not _NEEDS_ESCAPING.search(text):
        return text
    return _escape_runs(_NOT_SIMPLE, text)


def escape_controls(text: str) -> str:
    """Escape the invisible characters of text that may be escaped already; TAB and LF stay.

    For outputs of several lines. A backslash is not doubled again.
    """
    return _escape_runs(_NOT_PLAIN, text)


def escape_line(text: str) -> str:
    """Escape text as `escape_controls` does, and LF too. For outputs of one line: a log, a cell, a name."""
    return escape_controls(text).replace("\n", "\\n")


def _escape_runs(pattern: re.Pattern[str], text: str) -> str:
    """Escape the characters that a pattern matches; most text has few of them."""
    return pattern.sub(lambda match: "".join(map(_escape_character, match[0])), text)


def _escape_character(character: str) -> str:
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    if character.isprintable() and not _INVISIBLE_CHARACTER.match(character):
        return character
    number = ord(character)
    if number < 0x80:
        return f"\\x{number:02x}"
    if 0xDC80 <= number <= 0xDCFF:  # surrogateescape: an invalid byte
        return f"\\x{number - 0xDC00:02x}"
    return f"\\u{{{number:x}}}"


class Escaper:
    r"""Escape a stream that arrives in chunks, and keep its line structure.

    LF and TAB stay unescaped. CR LF becomes LF; any other CR is escaped, because it would let later text
    overwrite the line on a terminal. The joined output does not depend on how the stream is cut into chunks.
    """

    __slots__ = ("_decoder", "_pending")

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._pending = ""  # a CR that may be half of CR LF

    def feed(self, data: bytes) -> str:
        """Escape a chunk. An incomplete character at its end is held until the next chunk."""
        return self._escape_lines(self._decoder.decode(data), final=False)

    def end(self) -> str:
        """Escape the held bytes, at the end of the stream."""
        return self._escape_lines(self._decoder.decode(b"", final=True), final=True)

    def _escape_lines(self, text: str, *, final: bool) -> str:
        text = self._pending + text
        self._pending = ""
        if not final and text.endswith("\r"):
            text, self._pending = text[:-1], "\r"
        lines = text.replace("\r\n", "\n").split("\n")
        return "\n".join("\t".join(map(escape_text, line.split("\t"))) for line in lines)
