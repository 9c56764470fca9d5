"""The bytes that are sent through a proxy, and what is wrong with those that came out of it. Pure.

They are pseudo-random, as bytes of every value or as lines of text. So each place in them is found again, and
missing, repeated and exchanged parts are told apart.
"""

from __future__ import annotations

import base64
import random
from typing import Final

from bothends.check.transcript import MAX_QUOTED_BYTES, quote_bytes

_NEEDLE: Final = 16  # bytes: pseudo-random, so that they occur once
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}".encode()


def make_bytes(seed: str, size: int) -> bytes:
    """Return `size` bytes with every value, which are the same for the same seed."""
    return random.Random(seed).randbytes(size)


def make_text(seed: str, size: int) -> bytes:
    """Return lines in ASCII of `size` bytes in all, the last with its end, the same for the same seed."""
    return base64.encodebytes(make_bytes(seed, size))[: size - 1] + b"\n"


def quote_stream(data: bytes) -> str:
    """Return short data as a quoted string, and only the number of bytes of a long stream."""
    return quote_bytes(data) if len(data) <= MAX_QUOTED_BYTES else f"{len(data):,} bytes"


def describe_damage(sent: bytes, received: bytes) -> tuple[str, str]:
    """Return how received bytes differ from those that were sent, and the likely mistake; "" if unknown.

    `received` may be incomplete: then it is the beginning of `sent`, and there is no known mistake.
    """
    at = first_difference(sent, received)
    if at == len(received):
        return (
            (f"only the first {at:,} of {len(sent):,} bytes arrived", "") if at else ("nothing arrived", "")
        )
    if at == len(sent):
        return _describe_surplus(sent, received[at:])
    needle = received[at : at + _NEEDLE]
    place = f"from byte {at:,} on"
    if len(needle) == _NEEDLE:
        if (found := sent.find(needle, at)) > 0:
            return (
                f"{found - at:,} bytes are missing {place}: those after them arrived",
                "ignores the result of send(), which may be less than it was given, or drops data",
            )
        if (found := sent.find(needle)) >= 0:
            return (
                f"bytes {found:,} to {at:,} arrived a second time {place}",
                "sends data again that send() has sent already, or a buffer that was not emptied",
            )
    around = slice(max(0, at - 2), at + 12)
    instead = f"{quote_bytes(received[around])} instead of {quote_bytes(sent[around])}"
    return f"the bytes differ {place}: {instead}", _guess_change(sent[at:], received[at:])


def first_difference(sent: bytes, received: bytes) -> int:
    """Return the place of the first byte that differs, or the length of the shorter one."""
    low, high = 0, min(len(sent), len(received))
    if sent[:high] == received[:high]:
        return high
    while high - low > 1:  # sent[:low] is right, and sent[:high] is not
        middle = (low + high) // 2
        low, high = (middle, high) if sent[low:middle] == received[low:middle] else (low, middle)
    return low


def _describe_surplus(sent: bytes, surplus: bytes) -> tuple[str, str]:
    text = f"all {len(sent):,} bytes arrived, and then more: {quote_bytes(surplus)}"
    if not surplus.strip(b"\0"):
        return text, "sends the whole buffer instead of its filled part"
    if surplus[:_NEEDLE] in sent:
        return text, "sends the rest of its buffer, with data of an earlier recv(), or sends data twice"
    return text, "adds something of its own"


def _guess_change(sent: bytes, received: bytes) -> str:
    """Return the mistake that made `received` of `sent`, which differ in the first byte; "" if unknown."""
    if received.startswith((_REPLACEMENT, b"?")):
        return "decodes the bytes as text: bytes that are not UTF-8 are replaced"
    if 0xC2 <= received[0] <= 0xC3 and sent[0] >= 0x80:
        return "encodes each byte as a character of UTF-8"
    if sent[:2] == b"\r\n" and received[:1] == b"\n":
        return "reads lines as text, which makes LF of CR LF"
    if sent[:1] == b"\n" and received[:2] == b"\r\n":
        return "makes CR LF of LF"
    if sent[:1] == b"\0":
        return "treats data as a string, which ends at NUL"
    if not received[:_NEEDLE].strip(b"\0"):
        return "sends the whole buffer instead of its filled part"
    return ""
