r"""Texts of a scene: literal bytes, patterns whose match is remembered, and remembered values. Pure.

    WELCOME {name=\w+}      a pattern, and the name under which its match is remembered
    {=\d+}                  a pattern that is not remembered
    BYE {name}              the remembered value
    hex: 00 2a {id=..}      bytes in hexadecimal
    {file:logo.png}         the content of a file
    {bytes:100000}          bytes of all values, the same each time
    {reply()}               the result of a Python function

`{` is text unless one of these follows, so that JSON needs no escapes. `\n`, `\r`, `\t`, `\0`,
`\xNN`, `\uNNNN` and `\` before a punctuation character are escapes.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from bothends.check import patterns
from bothends.check.case import FunctionError

MAX_FILLER: Final = 1 << 24  # bytes of {bytes:N}: the largest text of a scene
_PLACEHOLDER: Final = re.compile(
    r"\{(?:(?P<name>[A-Za-z_]\w*)?(?:\}|(?P<capture>=))"
    r"|file:(?P<file>[^{}]+)\}|bytes:(?P<bytes>\d+)\}|(?P<function>[A-Za-z_]\w*)\(\)\})"
)
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
class ComputedText:
    """The result of a Python function, which gets the remembered values by name, and returns bytes."""

    name: str
    function: Callable[[dict[str, bytes]], Any]

    def value(self, values: Mapping[str, bytes]) -> bytes:
        """Call the function.

        Raises:
            FunctionError: it raised an exception, or did not return bytes.
        """
        try:
            found = self.function(dict(values))
        except Exception as error:
            raise FunctionError(self.name, f"raised {error!r}") from error
        if not isinstance(found, bytes):
            raise FunctionError(self.name, f"returned {type(found).__name__}", "a text must be bytes")
        return found


@dataclass(frozen=True, slots=True)
class TextSources:
    """The files and functions that texts may name.

    `read_file` returns the content of a file, and `find_function` a function; both raise TextError.
    """

    read_file: Callable[[str], bytes]
    find_function: Callable[[str], Callable[..., Any]]


def _no_file(name: str) -> bytes:
    raise TextError(f"there is no file {name!r}", r"write \{ if it is text")


def _no_function(name: str) -> Callable[..., Any]:
    raise TextError(
        f"{name}() is a Python function",
        rf'name its file: functions = "file.py"; write \{{{name}()}} for text',
    )


NO_SOURCES: Final = TextSources(_no_file, _no_function)
TextPart = bytes | CapturedText | RecalledText | ComputedText


@dataclass(frozen=True, slots=True)
class TextTemplate:
    """A text of a scene: literal bytes, captures, recalls and results of functions, in order.

    `checker`: a Python function that judges a received text instead. It gets the text and the remembered
    values, and returns a reason if the text is wrong.
    """

    parts: tuple[TextPart, ...]
    checker: Callable[[bytes, dict[str, bytes]], Any] | None = None

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
        return b"".join(
            values[part.name] if isinstance(part, CapturedText) else _literal(part, values)
            for part in self.parts
        )

    def match_whole(self, data: bytes, values: Mapping[str, bytes]) -> Mapping[str, bytes] | None:
        """Return the values that the text remembers if it matches the whole of `data`, or else None.

        Raises:
            PatternTooSlow: a pattern takes too long.
            FunctionError: a function failed.
        """
        start, pattern, end = self._split(values)
        if pattern is None:
            return {} if data == start else None
        if len(data) < len(start) + len(end) or not (data.startswith(start) and data.endswith(end)):
            return None
        found = patterns.match_whole(pattern, data[len(start) : len(data) - len(end)])
        return found.groupdict() if found else None

    def match_start(self, data: bytes, values: Mapping[str, bytes]) -> tuple[int, Mapping[str, bytes]] | None:
        """Match the beginning of `data`. Returns: the size of the match, and the values that it remembers.

        Raises:
            PatternTooSlow: a pattern takes too long.
            FunctionError: a function failed.
        """
        start, pattern, end = self._split(values)
        if not data.startswith(start):
            return None
        if pattern is None:
            return len(start), {}
        with_end = patterns.compile_pattern(pattern.pattern + re.escape(end))
        found = patterns.match_start(with_end, data[len(start) :])
        return (len(start) + found.end(), found.groupdict()) if found else None

    def _split(self, values: Mapping[str, bytes]) -> tuple[bytes, re.Pattern[bytes] | None, bytes]:
        """Return the literal start, the pattern after it, and the literal end; no pattern if all is literal.

        Long literals are compared, because compiling them as a pattern takes longer than to receive them.
        """
        parts = [part if isinstance(part, CapturedText) else _literal(part, values) for part in self.parts]
        captures = [at for at, part in enumerate(parts) if isinstance(part, CapturedText)]
        if not captures:
            return b"".join(filter(_is_bytes, parts)), None, b""
        first, last = captures[0], captures[-1] + 1
        return (
            b"".join(filter(_is_bytes, parts[:first])),
            patterns.compile_pattern(b"".join(map(_as_pattern, parts[first:last]))),
            b"".join(filter(_is_bytes, parts[last:])),
        )

    def literal_start(self, values: Mapping[str, bytes]) -> bytes:
        """Return the bytes before the first pattern."""
        return self._split(values)[0]

    @property
    def has_certain_end(self) -> bool:
        """Whether it cannot match more when more data arrives: it ends with a literal, or a fixed size."""
        last = self.parts[-1] if self.parts else b""
        return not isinstance(last, CapturedText) or _FIXED_SIZE.fullmatch(last.pattern) is not None

    def split_head(self) -> tuple[list[TextTemplate], TextTemplate | None]:
        r"""Return its lines up to an empty line, and the text after that, or None if there is no empty line.

        Lines end with \n or \r\n.
        """
        lines: list[list[TextPart]] = [[]]
        for at, part in enumerate(self.parts):
            if not isinstance(part, bytes):
                lines[-1].append(part)
                continue
            rest = part
            while b"\n" in rest:
                line, _, rest = rest.partition(b"\n")
                if line := line.removesuffix(b"\r"):
                    lines[-1].append(line)
                if not lines[-1] and len(lines) > 1:
                    body = ((rest,) if rest else ()) + self.parts[at + 1 :]
                    return [TextTemplate(tuple(each)) for each in lines[:-1]], TextTemplate(body or (b"",))
                lines.append([])
            if rest:
                lines[-1].append(rest)
        return [TextTemplate(tuple(each)) for each in lines if each], None


_FIXED_SIZE: Final = re.compile(
    rb"(?:(?:\\x[0-9a-fA-F]{2}|\\[^xbBAZ]|\[\^?[^\]\[]+\]|[^][\\(){}*+?|^$])(?:\{\d+\})?)+"
)


def _is_bytes(part: bytes | CapturedText) -> TypeGuard[bytes]:
    return isinstance(part, bytes)


def _literal(part: bytes | RecalledText | ComputedText, values: Mapping[str, bytes]) -> bytes:
    if isinstance(part, bytes):
        return part
    return part.value(values) if isinstance(part, ComputedText) else values[part.name]


def _as_pattern(part: bytes | CapturedText) -> bytes:
    if isinstance(part, bytes):
        return re.escape(part)
    return b"(?P<%b>%b)" % (part.name.encode(), part.pattern) if part.name else b"(?:%b)" % part.pattern


@functools.cache
def make_filler(size: int) -> bytes:
    """Return `size` bytes of all values in no order, the same each time."""
    return random.Random(size).randbytes(size)


def parse_text(text: str, sources: TextSources = NO_SOURCES) -> TextTemplate:
    """Parse a text of a scene.

    Args:
        sources: the files and functions that it may name.

    Raises:
        TextError: an escape, a hexadecimal number or a pattern is invalid, or there is no such file.
    """
    in_hex = text.startswith(_HEX_PREFIX)
    at = len(_HEX_PREFIX) if in_hex else 0
    parts: list[TextPart] = []
    literal = bytearray()
    while at < len(text):
        if placeholder := _PLACEHOLDER.match(text, at):
            part, at = _parse_placeholder(text, placeholder, sources)
            if isinstance(part, bytes):
                literal += part
                continue
            if literal:
                parts.append(bytes(literal))
                literal.clear()
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


def _parse_placeholder(text: str, found: re.Match[str], sources: TextSources) -> tuple[TextPart, int]:
    """Return a placeholder, and where the text continues."""
    name = found["name"] or ""
    if found["file"]:
        return sources.read_file(found["file"]), found.end()
    if found["bytes"]:
        if int(found["bytes"]) > MAX_FILLER:
            raise TextError(f"{found[0]} is larger than {MAX_FILLER:,} bytes")
        return make_filler(int(found["bytes"])), found.end()
    if function := found["function"]:
        return ComputedText(function, sources.find_function(function)), found.end()
    if not found["capture"]:
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
        compiled = patterns.compile_pattern(pattern)
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
