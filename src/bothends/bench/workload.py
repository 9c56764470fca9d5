r"""Workloads: the requests to send and the expected responses.

Pure. A workload is a ring of exchanges (a request and its response). Each connection starts with the first
exchange and repeats the ring. Two kinds:

1. Numbered messages (`numbered`): every message begins with its number in three letters, so that duplicated,
   late and reordered responses are distinguished from wrong ones. Messages are lower-case letters, so that
   the `upper` service changes them.
2. A script (`parse_script`), for any protocol. `> text` is sent and `< text` is expected, each with a line
   end; `#` starts a comment. `\n`, `\r`, `\t`, `\\` and `\xNN` stand for bytes. Consecutive lines of one kind
   form one request or one response:

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
"""Letters of a number: 16**3 different messages."""

DEFAULT_EXCHANGES: Final = 256
"""Messages of a ring, unless the depth needs more: at usual sizes they fit into the CPU's cache."""

MAX_DEPTH: Final = len(ALPHABET) ** NUMBER_WIDTH // 2
"""Maximum pending requests per connection: the ring has twice as many messages with different numbers."""

MAX_TOTAL_SIZE: Final = 8 * 1024 * 1024  # approximate bytes of a ring: it has fewer messages if they are long
MAX_MESSAGE_SIZE: Final = 16 * 1024 * 1024
MAX_DATAGRAM_SIZE: Final = 65_507  # RFC 768, RFC 791: 65,535 minus the headers
_FILLER: Final = bytes(range(ord("a"), ord("z") + 1))

_ESCAPE: Final = re.compile(rb"\\(?:([nrt\\])|x([0-9a-fA-F]{2})|(.?))", re.DOTALL)
_ESCAPE_BYTES: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"\\": b"\\"}


@dataclass(frozen=True)
class Workload:
    """A ring of exchanges.

    `responses[i]` is the response to `requests[i]`; neither is empty. `name` is "echo", "upper" or "script".
    `terminator` is the byte that ends every response and occurs nowhere else in it, or b"" if there is none:
    the next response starts after it, even if one is wrong. `is_numbered`: all exchanges are different.
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
        """Length of every response in bytes; 0 if they differ."""
        lengths = {len(response) for response in self.responses}
        return lengths.pop() if len(lengths) == 1 else 0

    @cached_property
    def index_by_response(self) -> dict[bytes, int]:
        """Response -> its index in the ring."""
        return {response: index for index, response in enumerate(self.responses)}

    @cached_property
    def index_by_number(self) -> dict[bytes, int]:
        """Number at the start of a response -> its index in the ring; empty without numbers."""
        if not self.is_numbered:
            return {}
        return {response[:NUMBER_WIDTH]: index for index, response in enumerate(self.responses)}


def numbered(size: int, expect: Expect, *, newline: bool, depth: int = 1) -> Workload:
    """Create messages of `size` bytes, numbered if there is room. `newline`: terminate them with LF.

    `depth`, 1 to MAX_DEPTH, is the number of pending requests per connection: the ring has at least twice as
    many. Raises UsageError if the size is out of range.
    """
    limit = MAX_MESSAGE_SIZE if newline else MAX_DATAGRAM_SIZE
    if not 1 <= size <= limit:
        raise UsageError(f"the message size must be 1 to {limit:,} bytes, not {size:,}")
    end = b"\n" if newline else b""
    is_numbered = size >= NUMBER_WIDTH + len(end)
    count = max(min(DEFAULT_EXCHANGES, MAX_TOTAL_SIZE // size), 2 * depth, 2) if is_numbered else 1
    requests = []
    for number in range(count):
        head = _encode_number(number) if is_numbered else b""
        room = size - len(head) - len(end)
        rotated = _FILLER[number % 26 :] + _FILLER[: number % 26]
        requests.append(head + (rotated * (room // 26 + 1))[:room] + end)
    responses = [each.upper() for each in requests] if expect == "upper" else requests
    return Workload(expect, tuple(requests), tuple(responses), end, is_numbered)


def parse_script(text: str, *, newline: bool) -> Workload:
    """Parse a script; see the module's docstring. `newline`: append LF to each line (streams).

    Raises UsageError with the line number if the script is malformed.
    """
    exchanges: list[tuple[bytearray, bytearray]] = []
    for number, line in enumerate(text.splitlines(), 1):
        mark, _, rest = line.partition(" ")
        if not line.strip() or line.startswith("#"):
            continue
        if mark not in (">", "<"):
            raise UsageError(f"script, line {number}: does not begin with '> ' or '< ': {line[:40]!r}")
        data = _unescape(rest, number) + (b"\n" if newline else b"")
        if mark == ">" and (not exchanges or exchanges[-1][1]):
            exchanges.append((bytearray(), bytearray()))
        if not exchanges:
            raise UsageError(f"script, line {number}: a response before the first request")
        exchanges[-1][mark == "<"].extend(data)
    for request, response in exchanges:
        if not response:
            raise UsageError(f"script: no response to {bytes(request[:40])!r}; add a line '< ...'")
    if not exchanges:
        raise UsageError("script: it sends nothing; add a line such as '> hello'")
    requests, responses = ([bytes(each[side]) for each in exchanges] for side in (0, 1))
    return Workload("script", tuple(requests), tuple(responses))


def matching_rule(message: bytes, response: bytes) -> Expect | None:
    """Return the rule that a response to `message` follows, or None."""
    if response == message:
        return "echo"
    return "upper" if response == message.upper() else None


def _encode_number(number: int) -> bytes:
    digits = bytearray()
    for _ in range(NUMBER_WIDTH):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return bytes(reversed(digits))


def _unescape(text: str, number: int) -> bytes:
    def replacement(found: re.Match[bytes]) -> bytes:
        if found[1]:
            return _ESCAPE_BYTES[found[1]]
        if found[2]:
            return bytes.fromhex(found[2].decode())
        raise UsageError(f"script, line {number}: unknown escape \\{found[3].decode(errors='replace')}")

    return _ESCAPE.sub(replacement, text.encode("utf-8", "surrogateescape"))


def describe_sizes(messages: Sequence[bytes]) -> str:
    """Describe the sizes of messages: "64 bytes", "3 to 80 bytes"."""
    shortest, longest = min(map(len, messages)), max(map(len, messages))
    return f"{longest:,} bytes" if shortest == longest else f"{shortest:,} to {longest:,} bytes"
