r"""Texts of a scene: literal bytes, patterns whose match is remembered, and remembered values. Pure.

    WELCOME {name=\w+}      a pattern, and the name under which its match is remembered
    {=\d+}                  a pattern that is not remembered
    BYE {name}              the remembered value
    hex: 00 2a {id=..}      bytes in hexadecimal

`{` is text unless a name and `}` or `=` follow, so that JSON needs no escapes. `\n`, `\r`, `\t`, `\0`,
`\xNN`, `\uNNNN` and `\` before a punctuation character are escapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bothends.check.patterns import compile_pattern

_PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_]\w*)?(?:\}|(=))")
_HEX_PREFIX: Final = "hex:"
_SHORT_ESCAPES: Final = {"n": b"\n", "r": b"\r", "t": b"\t", "0": b"\0"}
_NUMBER_ESCAPES: Final = {"x": 2, "u": 4}  # letter -> hexadecimal digits


class TextError(ValueError):
    """A text is invalid. Fields: `reason`, `hint` (what to write instead)."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason, hint)
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True, slots=True)
class CapturedText:
    """A pattern. Its match is remembered under `name`, unless that is empty."""

    name: str
    pattern: bytes


@dataclass(frozen=True, slots=True)
class RecalledText:
    """The value that is remembered under `name`."""

    name: str


@dataclass(frozen=True, slots=True)
class TextTemplate:
    """A text of a scene: literal bytes, captures and recalls, in order."""

    parts: tuple[bytes | CapturedText | RecalledText, ...]

    @property
    def captures(self) -> tuple[CapturedText, ...]:
        """The patterns."""
        return tuple(part for part in self.parts if isinstance(part, CapturedText))

    @property
    def recalls(self) -> tuple[str, ...]:
        """The names of the remembered values."""
        return tuple(part.name for part in self.parts if isinstance(part, RecalledText))

    def render(self, values: Mapping[str, bytes]) -> bytes:
        """Return the bytes of a text without patterns, or with a value for each pattern's name."""
        return b"".join(part if isinstance(part, bytes) else values[part.name] for part in self.parts)

    def compile(self, values: Mapping[str, bytes]) -> re.Pattern[bytes]:
        """Return a pattern for the whole text, with a group for each capture that is remembered."""
        return compile_pattern(b"".join(_as_pattern(part, values) for part in self.parts))

    def literal_start(self, values: Mapping[str, bytes]) -> bytes:
        """Return the bytes before the first pattern."""
        start = b""
        for part in self.parts:
            if isinstance(part, CapturedText):
                break
            start += part if isinstance(part, bytes) else values[part.name]
        return start


def _as_pattern(part: bytes | CapturedText | RecalledText, values: Mapping[str, bytes]) -> bytes:
    if isinstance(part, bytes):
        return re.escape(part)
    if isinstance(part, RecalledText):
        return re.escape(values[part.name])
    return b"(?P<%b>%b)" % (part.name.encode(), part.pattern) if part.name else b"(?:%b)" % part.pattern


def parse_text(text: str) -> TextTemplate:
    """Parse a text of a scene.

    Raises:
        TextError: an escape, a hexadecimal number or a pattern is invalid.
    """
    in_hex = text.startswith(_HEX_PREFIX)
    at = len(_HEX_PREFIX) if in_hex else 0
    parts: list[bytes | CapturedText | RecalledText] = []
    literal = bytearray()
    while at < len(text):
        if placeholder := _PLACEHOLDER.match(text, at):
            if literal:
                parts.append(bytes(literal))
                literal.clear()
            part, at = _parse_placeholder(text, placeholder)
            parts.append(part)
        elif in_hex:
            at = _parse_hex(text, at, literal)
        elif text[at] == "\\":
            at = _parse_escape(text, at, literal)
        else:
            literal += text[at].encode()
            at += 1
    if literal or not parts:
        parts.append(bytes(literal))
    template = TextTemplate(tuple(parts))
    _check_names(template)
    return template


def _parse_placeholder(text: str, found: re.Match[str]) -> tuple[CapturedText | RecalledText, int]:
    """Return a placeholder, and where the text continues."""
    name = found[1] or ""
    if not found[2]:
        if not name:
            raise TextError("{} has no name", r"write \{} for the text {}, or {=PATTERN} for a pattern")
        return RecalledText(name), found.end()
    end = _closing_brace(text, found.end())
    if end < 0:
        raise TextError(
            f"{text[found.start() :]!r} has no closing }}", r"write \{ if it is text, not a pattern"
        )
    pattern = text[found.end() : end]
    if not pattern:
        raise TextError(f"{{{name}=}} has no pattern", rf"for example, {{{name}=\w+}}")
    try:
        compiled = compile_pattern(pattern)
    except re.error as error:
        raise TextError(f"the pattern {pattern!r} is invalid: {error}") from error
    if compiled.groups:
        raise TextError(f"the pattern {pattern!r} has a group", "write (?: instead of (")
    return CapturedText(name, pattern.encode()), end + 1


def _closing_brace(text: str, at: int) -> int:
    """Return the position of the brace that ends a pattern, or -1. Braces in the pattern are balanced."""
    depth = 0
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == "{":
            depth += 1
        elif text[at] == "}":
            if depth == 0:
                return at
            depth -= 1
        at += 1
    return -1


def _parse_hex(text: str, at: int, literal: bytearray) -> int:
    """Append the byte at `at`. Returns: where the text continues."""
    if text[at].isspace():
        return at + 1
    digits = text[at : at + 2]
    if not re.fullmatch(r"[0-9A-Fa-f]{2}", digits):
        raise TextError(f"{digits!r} is not a byte in hexadecimal", "write two digits, such as 0a")
    literal.append(int(digits, 16))
    return at + 2


def _parse_escape(text: str, at: int, literal: bytearray) -> int:
    """Append the character of the escape at `at`. Returns: where the text continues."""
    kind = text[at + 1 : at + 2]
    if size := _NUMBER_ESCAPES.get(kind):
        digits = text[at + 2 : at + 2 + size]
        if not re.fullmatch(rf"[0-9A-Fa-f]{{{size}}}", digits):
            raise TextError(
                f"\\{kind} needs {size} hexadecimal digits, found {digits!r}", r"write \\ for a backslash"
            )
        number = int(digits, 16)
        if 0xD800 <= number <= 0xDFFF:
            raise TextError(f"\\u{digits} is half of a character", "write the character itself")
        literal += bytes([number]) if kind == "x" else chr(number).encode()
        return at + 2 + size
    if kind in _SHORT_ESCAPES:
        literal += _SHORT_ESCAPES[kind]
    elif kind and not kind.isalnum() and kind.isascii() and kind.isprintable() and kind != " ":
        literal += kind.encode()
    else:
        raise TextError(f"unknown escape \\{kind}", r"write \\ for a backslash; \n, \r, \t, \0, \xNN, \uNNNN")
    return at + 2


def _check_names(template: TextTemplate) -> None:
    names = [each.name for each in template.captures if each.name]
    for name in names:
        if names.count(name) > 1:
            raise TextError(f"{{{name}=...}} is twice in one text", "give each pattern its own name")
    for name in template.recalls:
        if name in names:
            raise TextError(f"{{{name}}} is used in the text that remembers it", "use it in a later line")
