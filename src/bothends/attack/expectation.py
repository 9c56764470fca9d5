"""What a right answer is: learned from the answers of a server while nothing else goes on. Pure.

1. The request itself, or the request in capitals, is recognised. Then every request has a number of its own,
   so that an answer to another client's request is noticed.
2. Answers that are always the same are compared byte by byte.
3. Answers that differ in digits and in words between them, such as a clock or a Date header, are compared by
   what stays the same: the rest, and where the digits are.
4. Other answers only have to come. The report says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bothends.check.contract import load, make_oracle
from bothends.check.oracle import ExpectedReply
from bothends.errors import UsageError

MAX_COMPARED: Final = 16_384  # bytes of an answer: what comes after them is not read
DEFAULT_REQUEST: Final = b"an honest request\n"
_VARYING: Final = re.compile(rb"[0-9]+|(?<![A-Za-z])(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)(?![a-z])")
_ESCAPES: Final = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\"}

_NO_ANSWER: Final = ExpectedReply(silent=True)

Rule = Literal["echo", "upper", "same", "pattern", "any", "silent"]


@dataclass(frozen=True, slots=True)
class Expectation:
    """The right answer to each honest request.

    `request`: the request, or its beginning if `numbered`; `rule`: how the answer follows; `answer`: what is
    right by "same" and "pattern"; `half_close`: the client shuts down its write side after the request;
    `until_eof`: the server closes after the answer; `kept`: a connection takes several requests;
    `concurrent`: the server serves more than one connection at a time.
    """

    request: bytes
    rule: Rule
    answer: ExpectedReply = _NO_ANSWER
    numbered: bool = False
    half_close: bool = False
    until_eof: bool = False
    kept: bool = False
    concurrent: bool = False

    def message(self, number: int) -> bytes:
        """Return the request of this number."""
        if not self.numbered:
            return self.request
        text, newline = self.request.rstrip(b"\n"), self.request[len(self.request.rstrip(b"\n")) :]
        return b"%b %d%b" % (text, number, newline)

    def reply(self, number: int) -> ExpectedReply:
        """Return the right answer to the request of this number."""
        match self.rule:
            case "echo":
                return ExpectedReply(self.message(number))
            case "upper":
                return ExpectedReply(self.message(number).upper())
            case "silent":
                return ExpectedReply(silent=True)
            case _:
                return self.answer

    def is_complete(self, number: int, data: bytes, *, eof: bool) -> bool:
        """Whether nothing more has to be read."""
        if self.rule == "silent":
            return True
        if self.rule == "any":
            return eof or (bool(data) and not self.until_eof)
        if len(data) >= MAX_COMPARED:
            return True
        return eof or (not self.until_eof and self.reply(number).matches(data))

    def is_right(self, number: int, data: bytes) -> bool:
        """Whether this is the whole answer."""
        if self.rule in ("any", "silent"):
            return self.rule == "silent" or bool(data)
        return self.reply(number).matches(data[:MAX_COMPARED])

    def is_wrong(self, number: int, data: bytes) -> bool:
        """Whether this can't become the right answer, whatever follows."""
        if self.rule in ("any", "silent", "pattern"):
            return False
        return not self.reply(number).is_prefix(data[:MAX_COMPARED])

    @property
    def description(self) -> str:
        """What is compared, in one line."""
        return {
            "echo": "the answer is the request, each with its own number",
            "upper": "the answer is the request in capitals, each with its own number",
            "same": "the answer is always the same, and compared byte by byte",
            "pattern": "the answer differs from time to time: its digits and days are not compared",
            "any": "the answer differs each time: only that one comes is checked",
            "silent": "there is no answer: only that a connection takes the request is checked",
        }[self.rule]


def infer_rule(request: bytes, answers: Sequence[bytes]) -> tuple[Rule, ExpectedReply]:
    """Infer how answers follow from a request.

    Args:
        answers: at least one, at most `MAX_COMPARED` bytes each.
    """
    first = answers[0]
    if not any(answers):
        return "silent", ExpectedReply(silent=True)
    if all(each == request for each in answers):
        return "echo", ExpectedReply(first)
    if all(each == request.upper() for each in answers):
        return "upper", ExpectedReply(first)
    if all(each == first for each in answers):
        return "same", ExpectedReply(first)
    skeletons = {_VARYING.sub(b"", each) for each in answers}
    if len(skeletons) == 1 and _VARYING.split(first) != [b"", b""]:
        parts = [re.escape(each) for each in _VARYING.split(first)]
        pattern = re.compile(b"(?:[0-9]+|[A-Z][a-z][a-z])".join(parts), re.DOTALL)
        return "pattern", ExpectedReply(pattern=pattern, example=first)
    return "any", ExpectedReply()


def from_contract(name: str) -> Expectation:
    """Return the right answer of a contract of `bothends check`: to its first message.

    Raises:
        UnknownName, ConfigurationError: there is no such contract, or it is not valid.
        UsageError: the answer never ends, so it is never known to be right.
    """
    contract = load(name)
    if not contract.has_answer:
        raise UsageError(f"contract {name!r} has scenes only, and no [answer]: give --request")
    if contract.endless:
        raise UsageError(
            f"contract {name!r} has an answer without an end; an honest client needs one with an end"
        )
    oracle = make_oracle(contract)
    message = b"an honest request" if oracle.accepts_any_message else oracle.messages[0]
    reply = oracle.reply(message)
    once = not contract.persistent
    return Expectation(
        b"" if contract.speaks_first else contract.encode(message),
        "silent" if reply.silent else "pattern" if reply.pattern else "same",
        reply,
        until_eof=reply.until_eof or (once and not contract.is_datagram and not reply.silent),
        kept=contract.persistent and not contract.is_datagram and not contract.speaks_first,
        concurrent=True,
    )


def parse_request(text: str, *, stream: bool) -> bytes:
    r"""Return the bytes of `--request`: \r, \n, \t, \0, \\ and \xHH are escapes, and a stream gets a last LF.

    Raises:
        UsageError: another escape, or nothing.
    """

    def replace(found: re.Match[str]) -> str:
        if found[1]:
            return chr(0xDC00 + int(found[1], 16)) if int(found[1], 16) > 127 else chr(int(found[1], 16))
        if found[2] not in _ESCAPES:
            raise UsageError(rf"--request: \{found[2]} is not an escape; use \r, \n, \t, \0, \\ or \xHH")
        return _ESCAPES[found[2]]

    data = re.sub(r"\\(?:x([0-9a-fA-F]{2})|(.?))", replace, text, flags=re.DOTALL)
    encoded = data.encode("utf-8", "surrogateescape")
    if stream and not encoded.endswith(b"\n"):
        encoded += b"\n"
    if not encoded:
        raise UsageError("--request is empty; give the text of a request that the server answers")
    return encoded
