r"""What is sent, and what must come: exchanges of a request and its answer, one after another.

Pure. A workload is a ring of exchanges: each connection goes round it from its first. Two kinds:

1. Numbered messages (`numbered`): every message says which one it is, in three letters, so that an answer
   that comes twice, too late or in the wrong order is told from one that is wrong. All of them are small
   letters, so that `upper` has something to do.
2. A script (`scripted`): lines to send and what must come, for any protocol. `> text` is sent, `< text`
   must come, each with its line's end; `#` begins a remark. `\n`, `\r`, `\t`, `\\` and `\xNN` stand for
   bytes. Lines that follow each other are one request, or one answer:

       > HELO bench
       < 250 hello, bench
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, TypeAlias

from bothends.errors import UsageError

Expect: TypeAlias = Literal["echo", "upper"]

ALPHABET: Final = b"abcdefghijklmnop"
NUMBER_WIDTH: Final = 3
"""Letters of a number: 16**3 messages."""

DEFAULT_EXCHANGES: Final = 256
"""Messages of a ring, unless the depth needs more: at the usual sizes they stay in a processor's cache."""

MAX_DEPTH: Final = len(ALPHABET) ** NUMBER_WIDTH // 2
"""Most requests that may be open on one connection: twice as many have different numbers."""

MAX_TOTAL_SIZE: Final = 8 * 1024 * 1024  # bytes of a ring, about: long messages have a smaller one
MAX_MESSAGE_SIZE: Final = 16 * 1024 * 1024
MAX_DATAGRAM_SIZE: Final = 65_507  # RFC 768, RFC 791: 65,535 less the headers
_FILLER: Final = bytes(range(ord("a"), ord("z") + 1))

_ESCAPE: Final = re.compile(rb"\\(?:([nrt\\])|x([0-9a-fA-F]{2})|(.?))", re.DOTALL)
_ESCAPE_BYTES: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"\\": b"\\"}


@dataclass(frozen=True)
class Workload:
    """A ring of exchanges.

    `sends[i]` asks for `answers[i]`; neither is empty. `name` is "echo", "upper" or "script". `end`: the byte
    with which every answer ends and which stands nowhere else in it, or b"" where there is none: after an
    answer that is wrong, the next one begins behind it. `numbers`: no two exchanges are the same.
    """

    name: str
    requests: tuple[bytes, ...]
    responses: tuple[bytes, ...]
    terminator: bytes = b""
    is_numbered: bool = False

    def __len__(self) -> int:
        return len(self.requests)

    @cached_property
    def uniform_size(self) -> int:
        """The length of every answer in bytes; 0 where they differ."""
        lengths = {len(answer) for answer in self.responses}
        return lengths.pop() if len(lengths) == 1 else 0

    @cached_property
    def index_by_response(self) -> dict[bytes, int]:
        """Answer -> its place in the ring."""
        return {answer: place for place, answer in enumerate(self.responses)}

    @cached_property
    def index_by_number(self) -> dict[bytes, int]:
        """The number that an answer begins with -> its place; empty without numbers."""
        if not self.is_numbered:
            return {}
        return {answer[:NUMBER_WIDTH]: place for place, answer in enumerate(self.responses)}


def numbered(size: int, expect: Expect, *, newline: bool, depth: int = 1) -> Workload:
    """Messages of `size` bytes, each with a number where there is room for one. `newline`: LF ends them.

    `depth`, 1 to DEEPEST, is how many are open at once on a connection: the ring is at least twice that.

    Raises CallerError for a size that can't be.
    """
    limit = MAX_MESSAGE_SIZE if newline else MAX_DATAGRAM_SIZE
    if not 1 <= size <= limit:
        raise UsageError(f"a message has 1 to {limit:,} bytes here, not {size:,}")
    end = b"\n" if newline else b""
    numbers = size >= NUMBER_WIDTH + len(end)
    count = max(min(DEFAULT_EXCHANGES, MAX_TOTAL_SIZE // size), 2 * depth, 2) if numbers else 1
    sends = []
    for number in range(count):
        head = _encode_number(number) if numbers else b""
        room = size - len(head) - len(end)
        turned = _FILLER[number % 26 :] + _FILLER[: number % 26]
        sends.append(head + (turned * (room // 26 + 1))[:room] + end)
    answers = [each.upper() for each in sends] if expect == "upper" else sends
    return Workload(expect, tuple(sends), tuple(answers), end, numbers)


def parse_script(text: str, *, newline: bool) -> Workload:
    """The exchanges of a script; see above. `newline`: LF is added to each line (streams).

    Raises CallerError, which names the line, for what is no script.
    """
    exchanges: list[tuple[bytearray, bytearray]] = []
    for number, line in enumerate(text.splitlines(), 1):
        mark, _, rest = line.partition(" ")
        if not line.strip() or line.startswith("#"):
            continue
        if mark not in (">", "<"):
            raise UsageError(f"script, line {number}: it begins with neither '> ' nor '< ': {line[:40]!r}")
        data = _unescape(rest, number) + (b"\n" if newline else b"")
        if mark == ">" and (not exchanges or exchanges[-1][1]):
            exchanges.append((bytearray(), bytearray()))
        if not exchanges:
            raise UsageError(f"script, line {number}: an answer before anything is sent")
        exchanges[-1][mark == "<"].extend(data)
    for sent, answer in exchanges:
        if not answer:
            raise UsageError(f"script: no answer is expected to {bytes(sent[:40])!r}; add a line '< ...'")
    if not exchanges:
        raise UsageError("script: it sends nothing; a line '> hello' does")
    sends, answers = ([bytes(each[side]) for each in exchanges] for side in (0, 1))
    return Workload("script", tuple(sends), tuple(answers))


def matching_rule(message: bytes, answer: bytes) -> Expect | None:
    """Which rule an answer to `message` follows; None if neither."""
    if answer == message:
        return "echo"
    return "upper" if answer == message.upper() else None


def _encode_number(number: int) -> bytes:
    digits = bytearray()
    for _ in range(NUMBER_WIDTH):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return bytes(reversed(digits))


def _unescape(text: str, number: int) -> bytes:
    def plain(found: re.Match[bytes]) -> bytes:
        if found[1]:
            return _ESCAPE_BYTES[found[1]]
        if found[2]:
            return bytes.fromhex(found[2].decode())
        raise UsageError(f"script, line {number}: \\{found[3].decode(errors='replace')} is no escape")

    return _ESCAPE.sub(plain, text.encode("utf-8", "surrogateescape"))


def describe_sizes(messages: Sequence[bytes]) -> str:
    """How long messages are, in words: "64 bytes", "3 to 80 bytes"."""
    shortest, longest = min(map(len, messages)), max(map(len, messages))
    return f"{longest:,} bytes" if shortest == longest else f"{shortest:,} to {longest:,} bytes"
