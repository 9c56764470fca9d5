"""Rules about Java's object streams: one header comes first, and each object is sent once. Pure.

The constructor of ObjectInputStream reads the header of 4 bytes, and waits until the constructor of the other
end's ObjectOutputStream has sent it. If both ends make their input stream first, neither sends it.

A second writeObject() of the same object sends TC_REFERENCE and its number (Java Object Serialization
Specification, section 6.4): the reader gets the object as it was the first time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of, runs
from bothends.trace.findings.failures import failure_after
from bothends.trace.findings.standstill import Standstill, ThreadState, age, call_name, evidence, standstills
from bothends.trace.findings.turns import both_ends, ended_without_reading, peer_socket
from bothends.trace.model import Socket
from bothends.trace.rendering import formatting

_HEADER: Final = b"\xac\xed\x00\x05"  # STREAM_MAGIC, STREAM_VERSION
_OBJECT: Final = b"s"  # TC_OBJECT
_REFERENCE: Final = b"q\x00\x7e"  # TC_REFERENCE and the first half of baseWireHandle
_REFERENCE_SIZE: Final = 5
_NOT_SERIALIZABLE: Final = b"java.io.NotSerializableException"
_EXCEPTION: Final = 20_000  # bytes of a stream in which the message of an exception is looked for
_STRING: Final = re.compile(rb"t\x00([\x01-\xff])([A-Za-z_$][\w$.]*)")  # TC_STRING, a length, a class name
_FIRST_READ: Final = 2  # bytes: ObjectInputStream reads STREAM_MAGIC by itself


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


def stream_header_repeated(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a second ObjectOutputStream on one connection, and a reader that failed at its header."""
    for socket in trace_index.sockets("stream"):
        sends = trace_index.sends(socket)
        again = [call for call in sends[1:] if call.data.startswith(_HEADER)]
        if not again or not sends[0].data.startswith(_HEADER):
            continue
        reader = peer_socket(trace_index, socket)
        receives = [call for call in trace_index.receives(reader) if call.size] if reader is not None else []
        failed = failure_after(trace_index, receives[-1]) if receives else ""
        has_come = (
            sum(call.size for call in receives) > trace_index.bytes_sent_by[again[0].number] - again[0].size
        )
        if reader is None or not failed or not has_come:
            continue
        name, other = name_of(trace_index, again[0].process), name_of(trace_index, receives[-1].process)
        times = f"{len(again)} more headers" if len(again) > 1 else "one more header"
        yield Finding(
            "stream-header-repeated",
            "A new object stream was begun on a connection that has one",
            f"{capitalized(name)} sent the header of an object stream (ac ed 00 05), and later {times} on "
            "the same connection: probably it makes a new ObjectOutputStream for each message. "
            f"{capitalized(other)} read it in {call_name(receives[-1])}, and {failed}: one ObjectInputStream "
            "expects one header, and throws StreamCorruptedException (invalid type code: AC) at the next.",
            "Make one ObjectOutputStream for each connection, keep it, and use it for every message; reset() "
            "it when objects have changed. At the other end keep one ObjectInputStream.",
            (sends[0].number, again[0].number, receives[-1].number),
            process=again[0].process,
            sockets=(socket.number, reader.number),
            in_c="",
            in_python="",
        )


def object_stream_expected(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find an object stream of Java at one end of a connection, and something else at the other end."""
    yield from _object_stream_not_read(trace_index)
    yield from _something_else_sent(trace_index)


def _something_else_sent(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a reader of Java that expects an object stream, and stops at the first bytes of something else."""
    for socket in trace_index.sockets("stream"):
        reader = peer_socket(trace_index, socket)
        receives = trace_index.receives(reader) if reader is not None else []
        if reader is None or len(receives) < 2 or not runs(trace_index, receives[0].process, "java"):
            continue
        start = b"".join(call.data[: call.size] for call in receives[:2])
        halves = all(call.requested == call.size == _FIRST_READ for call in receives[:2])
        if not halves or len(receives) > 2 or start == _HEADER:
            continue
        if not ended_without_reading(trace_index, reader, receives[1]):
            continue
        sends = trace_index.sends(socket)
        if not sends or sends[0].data[: len(_HEADER)] != start:
            continue
        name, other = name_of(trace_index, sends[0].process), name_of(trace_index, receives[1].process)
        yield Finding(
            "object-stream-expected",
            "One end reads an object stream of Java, and the other end sends something else",
            f"{capitalized(other)} read 4 bytes in two reads, {formatting.quoted(start)} ({start.hex(' ')}), "
            "and stopped: probably it has an ObjectInputStream, which expects the header ac ed 00 05 first, "
            f"and throws StreamCorruptedException (invalid stream header: {start.hex().upper()}). "
            f"{capitalized(name)} sent {formatting.quoted(sends[0].data, sends[0].size, 24)}.",
            "Use the same format at both ends: an ObjectOutputStream at the sender, which only Java has, or "
            "a format of bytes at the reader, such as lines (BufferedReader.readLine()) or JSON.",
            (sends[0].number, *(call.number for call in receives)),
            "inferred",
            "Java read 2 and 2 bytes and no more, as the constructor of ObjectInputStream does",
            process=receives[1].process,
            sockets=(socket.number, reader.number),
            in_c="",
            in_python="",
        )


def _object_stream_not_read(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find an object stream of Java, sent to a reader that takes it for something else and waits for more."""
    for each in standstills(trace_index):
        if each.peer is None or each.unread or each.unread_here or each.socket.accepted_from is not None:
            continue
        sends = each.sends(each.socket)
        reader = next((state for state in each.peers if state.waits_for(each.peer.number)), None)
        if reader is None or not sends or not sends[0].data.startswith(_HEADER) or each.sends(each.peer):
            continue
        reads = each.receives(each.peer)
        if not reads or runs(trace_index, reader.process, "java"):
            continue  # it may read objects, through a buffer
        name, other = name_of(trace_index, sends[0].process), name_of(trace_index, reader.process)
        yield Finding(
            "object-stream-expected",
            "One end sends an object stream of Java, and the other end reads something else",
            f"{capitalized(name)} sent an object stream of Java, which begins with ac ed 00 05, and waits in "
            f"{call_name(each.waiter)} for the answer, for {age(each, each.waiter)}. {capitalized(other)} "
            f"has read all of it and waits in {call_name(reader)} for more: probably it expects text, such "
            "as a line, or another format.",
            "Send bytes or text in a format that both ends know, such as lines (PrintWriter.println()) or "
            "JSON. Only Java reads what an ObjectOutputStream writes, with an ObjectInputStream.",
            evidence(sends[0], reads[-1], reader, each.waiter),
            "inferred",
            "the stream has the header of Java's object streams, and the reader is not Java",
            process=sends[0].process,
            sockets=(each.socket.number, each.peer.number),
            in_c="",
            in_python="",
        )


def object_not_serializable(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find an object that could not be written to an object stream: the stream holds the exception."""
    for socket in trace_index.sockets("stream"):
        sends = trace_index.sends(socket)
        if not sends or not sends[0].data.startswith(_HEADER):
            continue
        failed = next((call for call in sends if _NOT_SERIALIZABLE in call.data), None)
        if failed is None:
            continue
        name = name_of(trace_index, failed.process)
        following = b"".join(call.data for call in sends if failed.number <= call.number)[:_EXCEPTION]
        strings = [(each[1][0], each[2]) for each in _STRING.finditer(following)]
        classes = [text[:size] for size, text in strings if len(text) >= size]
        which = f" of the class {formatting.quoted(classes[0], len(classes[0]), 60)}," if classes else ""
        yield Finding(
            "object-not-serializable",
            "An object could not be written, and the exception was sent in its place",
            f"{capitalized(name)} wrote an object to an ObjectOutputStream. It, or one that it refers to,"
            f"{which} is not Serializable: writeObject() threw NotSerializableException and sent the "
            "exception: the reader gets a WriteAbortedException.",
            "Let the class implement java.io.Serializable, or mark the field transient. Handle the exception "
            "of writeObject(): this stream cannot be used after it.",
            (failed.number,),
            process=failed.process,
            sockets=both_ends(trace_index, socket),
            in_c="",
            in_python="",
        )


def awaits_stream_header(trace_index: TraceIndex, state: ThreadState) -> bool:
    """Return whether a thread of Java waits for as many bytes as the magic number of an object stream has."""
    is_java = runs(trace_index, state.process, "java")
    return is_java and state.call is not None and state.call.requested == _FIRST_READ


def stream_header_awaited(
    each: Standstill, peer: Socket, reader: ThreadState, client: str, server: str
) -> Finding:
    """Return the finding for two programs of Java that both wait for 2 bytes, before anything was sent."""
    return Finding(
        "unflushed",
        "Both ends probably wait for the header of an object stream",
        f"{capitalized(client)} waits in {call_name(each.waiter)} for {age(each, each.waiter)}, and {server} "
        f"waits in {call_name(reader)}, but neither has sent anything: probably each end creates its "
        "ObjectInputStream first. The constructor of it waits for the header that the constructor of the "
        "other end's ObjectOutputStream sends.",
        "At both ends, or at one at least, create the ObjectOutputStream first and flush() it, then the "
        "ObjectInputStream. If no object streams are used, let one end begin.",
        evidence(each.waiter, reader),
        "inferred",
        "both are Java, wait for 2 bytes, and no byte was sent",
        process=each.waiter.process,
        sockets=(each.socket.number, peer.number),
        in_c="",
        in_python="",
    )
