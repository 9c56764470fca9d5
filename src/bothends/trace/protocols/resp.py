"""RESP, the protocol of Redis: commands, bulk strings, and the errors that only it has. Pure.

A command is an array of bulk strings: *2 CRLF $3 CRLF GET CRLF $3 CRLF key CRLF. "+OK" and "-ERR" are not
named, because POP3 has them, too.
"""

from __future__ import annotations

import re
from typing import Final

from bothends.escaping import escape

MAX_WORDS: Final = 3  # of a command that are shown
_ARRAY: Final = re.compile(rb"\*(\d{1,6})\r\n")
_BULK: Final = re.compile(rb"\$(\d{1,9})\r\n")
_COMMAND: Final = re.compile(rb"[A-Za-z][A-Za-z._-]{1,31}\Z")
_ONLY_REDIS: Final = re.compile(
    rb"(\+PONG|\+QUEUED|\$-1|-(?:WRONGTYPE|NOAUTH|NOSCRIPT|MOVED|ASK|LOADING|READONLY|EXECABORT) "
    rb"[^\r\n]{0,200})\r\n\Z"
)


def recognise(data: bytes, size: int) -> str:
    """Return the command or reply that bytes are; "" if they are none."""
    if found := _ARRAY.match(data):
        return _command(data, size, found.end(), int(found[1]))
    if found := _BULK.match(data):
        end = found.end() + int(found[1])
        if size == end + 2 and data[end:] == b"\r\n":
            return f"RESP bulk string of {int(found[1])} bytes"
    elif found := _ONLY_REDIS.match(data):
        return "RESP null" if found[1] == b"$-1" else f"RESP {escape(found[1][:100])}"
    return ""


def _command(data: bytes, size: int, at: int, count: int) -> str:
    words: list[bytes] = []
    for _ in range(count):
        found = _BULK.match(data, at)
        if found is None:
            break
        at = found.end() + int(found[1])
        if at + 2 > len(data):
            at = size  # it goes on beyond what is kept
            break
        if data[at : at + 2] != b"\r\n":
            return ""
        words.append(data[found.end() : at])
        at += 2
    whole = len(words) == count
    if not words or not _COMMAND.match(words[0]) or (not whole and at < size):
        return ""
    if whole and at < size and not _ARRAY.match(data, at):
        return ""
    shown = " ".join(escape(word[:40]) for word in words[:MAX_WORDS])
    return f"RESP {shown}" + (" …" if count > MAX_WORDS else "")
