"""A rule about text that is decoded piece by piece. Pure.

A read may begin in the middle of a character of UTF-8. A program that decodes each piece by itself gets
U+FFFD for both parts: it shows in what the program sends later, or in that it fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from bothends.trace.capture.calls import SENDING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.model import Call, Socket

_REPLACEMENT: Final = "\ufffd".encode()
_MIN_TEXT: Final = 16  # bytes of text beside the character: fewer may be text by chance


def character_split(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a reader that probably decodes each piece of a text by itself."""
    for socket in trace_index.sockets("stream"):
        reads = [call for call in trace_index.receives(socket) if call.size]
        cut = [(before, call) for before, call in pairwise(reads) if _is_cut(before, call)]
        harm = _harm(trace_index, socket, cut[0][1]) if cut else None
        if harm is None:
            continue
        event, text = harm
        before, first = cut[0]
        name = name_of(trace_index, first.process)
        times = f"{len(cut)} reads begin" if len(cut) > 1 else "a read begins"
        yield Finding(
            "character-split",
            "A character was cut by the border of a read",
            f"{capitalized(name)} read a text in pieces, and {times} in the middle of a character (byte "
            f"{first.data[0]:02x}). {capitalized(name)} {text}: probably it decodes each piece by itself.",
            "Collect the bytes and decode the whole text, or use a decoder that keeps an incomplete "
            "character for the next piece; in Node.js setEncoding('utf8').",
            (before.number, first.number, *(() if event is None else (event,))),
            certainty="inferred",
            basis="the border of a read is inside a character, and the program fails or sends U+FFFD",
            process=first.process,
            sockets=(socket.number,),
            in_c="/* keep the last bytes of a piece until the character is complete: mbrtowc() */",
            in_python="decoder = codecs.getincrementaldecoder('utf-8')(); text += decoder.decode(data)",
        )


def _is_cut(before: Call, call: Call) -> bool:
    """Return whether a read begins with the rest of a character, and both pieces are text."""
    if not call.data or not 0x80 <= call.data[0] < 0xC0:
        return False
    rest = next((at for at, byte in enumerate(call.data[:4]) if not 0x80 <= byte < 0xC0), 4)
    earlier = before.data.lstrip(bytes(range(0x80, 0xC0)))
    return rest < 4 and _is_text(call.data[rest:]) and _is_text(earlier)


def _is_text(data: bytes) -> bool:
    """Return whether bytes are a text in UTF-8, whose last character may be incomplete."""
    text = data.decode("utf-8", "ignore")
    lost = len(data) - len(text.encode())
    return len(data) >= _MIN_TEXT and lost < 4 and all(each.isprintable() or each.isspace() for each in text)


def _harm(trace_index: TraceIndex, socket: Socket, cut: Call) -> tuple[int | None, str] | None:
    """Return the event that shows harm, if there is one, and what happened; None if nothing did."""
    if not any(_REPLACEMENT in call.data for call in trace_index.receives(socket)):
        for call in trace_index.calls_by_process[cut.process]:
            if call.at > cut.at and call.name in SENDING and _REPLACEMENT in call.data:
                return call.number, "sent U+FFFD later, which the text did not have"
    status = trace_index.process(cut.process).status
    if status is not None and status > 0 and trace_index.ended_at(cut.process) is not None:
        return None, f"exited with status {status}"
    return None
