"""A rule about lengths that count the characters of a text, and not its bytes. Pure.

The stream is read in both ways: by bytes the next length is nonsense, or the text is cut; by characters every
message ends where the next one begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.framing import FRAMINGS, PrefixFormat
from bothends.trace.findings.turns import turns

_MAX_HEADER: Final = 16  # bytes before the first length: a count, a type
_MAX_MESSAGES: Final = 1_000
_LONGEST_TEXT: Final = 65_535  # bytes: a larger length is none of a text


def length_counts_characters(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a length that counts the characters of a text, and not its bytes."""
    for socket in trace_index.sockets("stream"):
        for turn in turns(trace_index, socket):
            if turn.kind != "sent" or len(turn.data) != turn.total or turn.data.isascii():
                continue  # the characters of ASCII are its bytes
            found = _whole_message(turn.data) or _message_in_stream(turn.data)
            if found is None:
                continue
            length, size = found
            yield Finding(
                "length-counts-characters",
                "The length of a message counts characters, not bytes",
                f"{capitalized(name_of(trace_index, turn.calls[0].process))} announced {length} bytes and "
                f"sent {size}: the text has {length} characters, and some of them take several bytes in "
                "UTF-8.",
                "Encode the text first, and send the length of the encoded bytes.",
                tuple(call.number for call in turn.calls[:3]),
                process=turn.calls[0].process,
                sockets=(socket.number,),
                in_c="n = strlen(text);   /* bytes, not characters: mbstowcs() counts those */",
                in_python="data = text.encode(); header = len(data)   # not len(text)",
            )
            break


def _whole_message(data: bytes) -> tuple[int, int] | None:
    """Return the announced length and the size of a payload, if the data is one such message; or None."""
    candidates = [(framing.size(data), data[framing.width :]) for framing in FRAMINGS[:4]]
    digits, separator, _ = data[:24].partition(b"\n")
    if separator and digits.strip().isdigit():
        candidates.append((int(digits), data[len(digits) + 1 :]))
    head, separator, body = data.partition(b"\r\n\r\n")
    if separator and b"content-length:" in head.lower():
        value = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0].strip()
        if value.isdigit():
            candidates.append((int(value), body))
    for length, payload in candidates:
        if 0 < length < len(payload) == _size_of(payload, length):
            return length, len(payload)
    return None


def _message_in_stream(data: bytes) -> tuple[int, int] | None:
    """Return the announced length and the size of the first such message among others, or None."""
    for framing in FRAMINGS[:4]:
        for start in range(0, min(_MAX_HEADER, len(data)), framing.width):
            found = _first_mismatch(data, start, framing)
            if found is not None:
                return found
    return None


def _first_mismatch(data: bytes, at: int, framing: PrefixFormat) -> tuple[int, int] | None:
    for _ in range(_MAX_MESSAGES):
        length = _length_at(data, at, framing)
        if length is None:
            return None
        begin = at + framing.width
        size = _size_of(data[begin : begin + 4 * length], length)
        if size is not None and size != length and _is_border(data, begin + size, framing):
            return None if _is_border(data, begin + length, framing) else (length, size)
        if _size_of(data[begin : begin + length], None) is None:
            return None
        at = begin + length
    return None


def _is_border(data: bytes, at: int, framing: PrefixFormat) -> bool:
    """Return whether a message may end here: at the end of the data, or where a length and a text follow."""
    if at == len(data):
        return True
    length = _length_at(data, at, framing)
    begin = at + framing.width
    return length is not None and _size_of(data[begin : begin + 4 * length], length) is not None


def _length_at(data: bytes, at: int, framing: PrefixFormat) -> int | None:
    length = framing.size(data[at : at + framing.width]) if at + framing.width < len(data) else 0
    return length if 0 < length <= min(_LONGEST_TEXT, len(data) - at - framing.width) else None


def _size_of(data: bytes, length: int | None) -> int | None:
    """Return how many bytes the first `length` characters of a text take, or None if it is no such text.

    `length` None: the data must be a text as a whole.
    """
    text = data.decode(errors="ignore")[:length]
    encoded = text.encode()
    if len(text) < (length or 1) or not data.startswith(encoded):
        return None
    if length is None and len(encoded) != len(data):
        return None
    return len(encoded) if all(each.isprintable() or each.isspace() for each in text) else None
