"""Change inputs at random: bytes with the words of other inputs, JSON values, lines of JSON.

All take their random generator, so that a seed determines the inputs.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, TypeAlias

# Bytes that parsers treat specially, and numbers at the limits of types.
SPECIAL: Final = [
    b"\0", b"\n", b"\r\n", b"\r", b"\t", b" ", b"\x1b[31m", b"\xff", b"\xc3", b"\xe2\x80\xae",
    b"\xed\xa0\x80", b"\xd9\xa3", b"\xef\xbc\x91", b"%", b"%00", b"%ff", b"\\", b'"', b"'", b"[", b"]", b"{",
    b"}", b"<", b">", b"(", b")", b":", b",", b"=", b"/", b"..", b"_", b"-1", b"0", b"00", b"0x", b"1e999",
    b"nan", b"inf", b"65535", b"65536", b"2147483648", b"18446744073709551616", b"9" * 40, b"a" * 300,
    b"[" * 2000, b'{"a":' * 1500,
]  # fmt: skip
VALUES: Final[list[Any]] = [
    None, 0, -1, 1, 2**31, 2**63, 2**70, 10**400, 1.5, -1e300, 5e-324, float("nan"), float("inf"), True,
    False, "", "\x1b[31m", "\ud800", "\u202e", "a" * 5000, [], {}, [[]], ["x", None], ["127.0.0.1", 80],
    ["::1", 99999999999], "open", "unix",
]  # fmt: skip

_WORD: Final = re.compile(rb"[A-Za-z_][A-Za-z_0-9-]+|[0-9]+(?:\.[0-9]+)?|\"[^\"\n]*\"|[^A-Za-z0-9\s]+")
_CHANGES: Final = (1, 1, 1, 2, 2, 4, 8)  # how many there are in one input


@dataclass(frozen=True, slots=True)
class Source:
    """What a mutator takes its material from: `inputs` to change, and `words` that occur in them."""

    generator: Random
    inputs: Sequence[bytes]
    words: Sequence[bytes]


Mutator: TypeAlias = Callable[[Source], bytes]


def words_of(inputs: Sequence[bytes]) -> list[bytes]:
    """Return the words, numbers, strings and punctuation of inputs, each once."""
    return sorted({word for each in inputs for word in _WORD.findall(each) if len(word) <= 100})


def mutate_bytes(source: Source) -> bytes:
    """Return an input with a few changes: pieces removed, repeated, replaced, moved, or of other inputs."""
    generator = source.generator
    data = bytearray(generator.choice(source.inputs))
    for _ in range(generator.choice(_CHANGES)):
        at = generator.randint(0, len(data))
        end = min(len(data), at + _short_length(generator))
        match generator.randrange(9):
            case 0:
                del data[at:end]
            case 1:
                data[at:at] = data[at:end] * generator.choice((1, 1, 2, 50))
            case 2 if at < len(data):
                data[at] ^= 1 << generator.randrange(8)
            case 3 if at < len(data):
                data[at] = generator.randrange(256)
            case 4:
                data[at:end] = generator.choice(SPECIAL)
            case 5 if source.words:
                data[at:end] = generator.choice(source.words)
            case 6 if source.words:
                data[at:at] = generator.choice(source.words)
            case 7:
                _replace_word(data, source)
            case _:
                other = generator.choice(source.inputs)
                start = generator.randint(0, len(other))
                data[at:end] = other[start : start + generator.choice((4, 40, 400))]
    return bytes(data)


def _replace_word(data: bytearray, source: Source) -> None:
    """Replace a whole word by another one, which keeps more of the syntax."""
    found = list(_WORD.finditer(data))
    if found and source.words:
        word = source.generator.choice(found)
        data[word.start() : word.end()] = source.generator.choice((*source.words, *SPECIAL))


def _short_length(generator: Random) -> int:
    return generator.choice((0, 1, 1, 2, 4, 8, 16, 64, 256))


def mutate_value(value: Any, generator: Random) -> Any:
    """Return a JSON value with one change somewhere in it."""
    if isinstance(value, dict) and value:
        key = generator.choice(list(value))
        change = generator.random()
        if change < 0.1:
            del value[key]
        else:
            old = None if change < 0.3 else value[key]
            value[key] = mutate_value(old, generator)
        return value
    if isinstance(value, list) and value and generator.random() < 0.7:
        at = generator.randrange(len(value))
        if generator.random() < 0.1:
            value[at:at] = [copy.deepcopy(value[at]) for _ in range(generator.choice((1, 40, 1200)))]
        else:
            value[at] = mutate_value(value[at], generator)
        return value
    return copy.deepcopy(generator.choice(VALUES))


def mutate_json(source: Source) -> bytes:
    """Return a JSON document with a few changed values; at times with changed bytes."""
    generator = source.generator
    if generator.random() < 0.1:
        return mutate_bytes(source)
    text = generator.choice(source.inputs)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return mutate_bytes(source)
    for _ in range(generator.choice(_CHANGES)):
        document = mutate_value(document, generator)
    return json.dumps(document).encode()


def mutate_json_lines(source: Source) -> bytes:
    """Return lines of JSON with changed values, missing, repeated or moved lines; at times changed bytes."""
    generator = source.generator
    if generator.random() < 0.1:
        return mutate_bytes(source)
    lines = generator.choice(source.inputs).splitlines()
    for _ in range(generator.choice((1, 1, 2, 5, 20))):
        at, change = generator.randrange(len(lines) or 1), generator.random()
        if change < 0.8 and lines:
            lines[at] = _mutate_line(lines[at], generator)
        elif change < 0.9:
            lines[at : at + 1] = generator.choice(source.inputs).splitlines()[at : at + 1]
        else:
            del lines[at : at + 1]
    return b"\n".join(lines) + b"\n"


def _mutate_line(line: bytes, generator: Random) -> bytes:
    try:
        return json.dumps(mutate_value(json.loads(line), generator)).encode()
    except (ValueError, RecursionError):
        return line
