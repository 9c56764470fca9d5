"""A rule about text in UTF-16, at a reader that takes each byte for a character. Pure.

writeChars() of Java sends two bytes for each character:

client ── 00 T 00 I 00 M 00 E 00 \\n ──> server looks for the line "TIME", and gets "\\0T\\0I\\0M\\0E\\0"
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of, runs
from bothends.trace.findings.failures import failure_after
from bothends.trace.findings.standstill import Standstill, age, call_name, standstills
from bothends.trace.findings.turns import Turn, peer_socket, stream_of
from bothends.trace.rendering import formatting

_SMALLEST: Final = 6  # bytes: three characters; fewer may be numbers
_REJECTION: Final = re.compile(rb"(?i)\b(?:unknown|invalid|unrecognized|error|err|bad|not found)\b")
_SHOWN: Final = 24  # bytes of a text


def text_in_utf_16(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find text in UTF-16, at a reader that rejects it, does not answer, or fails."""
    stuck = {each.socket.number: each for each in standstills(trace_index)}
    for socket in trace_index.sockets("stream"):
        reader = peer_socket(trace_index, socket)
        sent = stream_of(trace_index, socket, "sent")
        if reader is None or socket.is_wrapped or not _is_wide(sent.data):
            continue
        received, answers = (stream_of(trace_index, reader, kind) for kind in ("received", "sent"))
        if not received.calls or _is_wide(answers.data, 2):
            continue
        harm = _harm(trace_index, stuck.get(socket.number), received, answers)
        if not harm:
            continue
        name, other = (
            name_of(trace_index, sent.calls[0].process),
            name_of(trace_index, received.calls[0].process),
        )
        is_java = runs(trace_index, sent.calls[0].process, "java")
        of_java = " In Java writeChars() sends text so." if is_java else ""
        yield Finding(
            "text-in-utf-16",
            "Text is sent in UTF-16, and the other end reads one byte for each character",
            f"{capitalized(name)} sent {formatting.quoted(sent.data, sent.total, _SHOWN)}: every second byte "
            f"is NUL, as in UTF-16. {capitalized(other)} {harm}: probably it compares the text with one that "
            f"has no NULs.{of_java}",
            "Send the text in one encoding that both ends name, best UTF-8: in Java "
            "out.write(text.getBytes(StandardCharsets.UTF_8)), writeBytes() for ASCII, or a PrintWriter.",
            (sent.calls[0].number, received.calls[0].number),
            "inferred",
            f"NULs between characters, and {other} sends none",
            process=sent.calls[0].process,
            sockets=(socket.number, reader.number),
            in_c='send(fd, "TIME\\n", 5, 0);  /* char, not wchar_t */',
            in_python='s.sendall(text.encode("utf-8"))  # not "utf-16"',
        )


def _is_wide(data: bytes, smallest: int = _SMALLEST) -> bool:
    """Return whether bytes are ASCII text in UTF-16, in either byte order."""
    if len(data) < smallest or len(data) % 2:
        return False
    for high, low in ((data[::2], data[1::2]), (data[1::2], data[::2])):
        if not high.strip(b"\0") and all(32 <= byte < 127 or byte in b"\r\n\t" for byte in low):
            return True
    return False


def _harm(trace_index: TraceIndex, stands: Standstill | None, received: Turn, answers: Turn) -> str:
    """Return what became of the text, as part of a sentence; "" if it may have been understood."""
    if answers.total:
        shown = formatting.quoted(answers.data, answers.total, _SHOWN)
        return f"answered {shown}" if _REJECTION.search(answers.data) else ""
    failed = failure_after(trace_index, received.calls[-1])
    if failed:
        return f"read it and {failed}"
    if stands is None or stands.unread or stands.waiter.has_limit:
        return ""
    return (
        f"has read it and sent nothing, and {name_of(trace_index, stands.waiter.process)} waits in "
        f"{call_name(stands.waiter)} for {age(stands, stands.waiter)}"
    )
