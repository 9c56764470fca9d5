"""A rule about Java's ObjectOutputStream, which sends each object once. Pure.

A second writeObject() of the same object sends TC_REFERENCE and its number (Java Object Serialization
Specification, section 6.4): the reader gets the object as it was the first time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of

_HEADER: Final = b"\xac\xed\x00\x05"  # STREAM_MAGIC, STREAM_VERSION
_OBJECT: Final = b"s"  # TC_OBJECT
_REFERENCE: Final = b"q\x00\x7e"  # TC_REFERENCE and the first half of baseWireHandle
_REFERENCE_SIZE: Final = 5


def object_sent_once(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find an object that is written again to the same ObjectOutputStream, and not sent again."""
    for socket in trace_index.sockets("stream"):
        sends = trace_index.sends(socket)
        if not sends or not sends[0].data.startswith(_HEADER):
            continue
        objects = [call for call in sends if call.data.removeprefix(_HEADER).startswith(_OBJECT)]
        again = [call for call in sends if call.size == _REFERENCE_SIZE and call.data.startswith(_REFERENCE)]
        if not again or not objects or any(call.data.removeprefix(_HEADER)[:1] == b"t" for call in sends):
            continue  # a string, which does not change, may be sent so on purpose
        name = name_of(trace_index, again[0].process)
        times = f"{len(again)} times" if len(again) > 1 else "once"
        yield Finding(
            "object-sent-once",
            "An object was written again, and only a reference to it was sent",
            f"{capitalized(name)} wrote an object of {objects[0].size} bytes to an ObjectOutputStream, "
            f"and then {times} only a reference of {_REFERENCE_SIZE} bytes to it: the reader gets the object "
            "as it was the first time, probably without its changes.",
            "Call reset() before you write an object that has changed, or writeUnshared() with a new one.",
            (objects[0].number, *(call.number for call in again[:3])),
            certainty="inferred",
            basis="TC_REFERENCE in the stream; whether the object had changed cannot be seen",
            process=again[0].process,
            sockets=(socket.number,),
            in_c="",
            in_python="",
        )
