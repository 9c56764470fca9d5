"""A rule about a struct that is sent with a pointer in it: the address arrives, and not the text. Pure."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import RECEIVING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import INTERPRETERS, capitalized, name_of, runs
from bothends.trace.findings.turns import both_ends
from bothends.trace.model import Call
from bothends.trace.rendering import formatting

SOON_NS: Final = 500_000_000  # nanoseconds between the read and the signal
_SIZE: Final = 8  # bytes of a pointer
# Where 64-bit Linux puts programs, heaps, libraries and stacks.
_ADDRESSES: Final = range(0x5500_0000_0000, 0x8000_0000_0000)
_FAULTS: Final = (-signal.SIGSEGV, -signal.SIGBUS)


def pointer_sent(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a program that died of SIGSEGV after it had read what looks like a pointer of its peer."""
    for event in trace_index.process_events:
        if event.kind != "ended" or event.status not in _FAULTS:
            continue
        reads = [
            call
            for call in trace_index.calls_by_process[event.process]
            if call.name in RECEIVING and call.size and call.socket is not None
        ]
        last = reads[-1] if reads else None
        sends = trace_index.senders_of(last) if last is not None else []
        if last is None or not sends or event.at - (last.until or last.at) > SOON_NS:
            continue
        at = _pointer(sends[0])
        if at is None or runs(trace_index, sends[0].process, *INTERPRETERS):
            continue
        name, sender = name_of(trace_index, event.process), name_of(trace_index, sends[0].process)
        value = int.from_bytes(sends[0].data[at : at + _SIZE], "little")
        yield Finding(
            "pointer-sent",
            "A pointer was sent in place of the data that it points to",
            f"{capitalized(sender)} sent {sends[0].size} bytes with 0x{value:x} in bytes {at} to "
            f"{at + _SIZE - 1}, which looks like an address in its memory. "
            f"{capitalized(name)} was {formatting.truncate(event.text, 40)} after it had read it: the "
            "address means nothing in another process.",
            "Send the bytes that the pointer refers to, with their length in front, or hold them in the "
            "struct as an array. The reader must not use a pointer that it has received.",
            (sends[0].number, last.number, event.number),
            "inferred",
            "a number of 8 bytes lies where Linux puts memory, and the reader died of a bad address",
            process=sends[0].process,
            sockets=both_ends(trace_index, trace_index.trace.sockets[last.socket or 0]),
            in_c="uint32_t n = htonl(size); send(fd, &n, sizeof n, 0); send(fd, text, size, 0);",
        )


def _pointer(send: Call) -> int | None:
    """Return where in a send an aligned pointer lies, or None."""
    data = send.data[: send.size]
    for at in range(0, len(data) - _SIZE + 1, _SIZE):
        word = data[at : at + _SIZE]
        if int.from_bytes(word, "little") in _ADDRESSES and not word[:6].isascii():
            return at
    return None
