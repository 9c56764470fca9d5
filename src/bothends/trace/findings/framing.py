"""Rules about the length of messages: length prefixes and whole buffers. Pure.

prefix                 reader                             rule
00 00 00 05 hello      asks for 83886080 bytes            length-byte-order
"GET "                 asks for 1195725856 bytes          text-as-length
hello 00 00 00 ...     gets 995 bytes too many            whole-buffer
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from bothends.trace.capture.calls import RECEIVING, SENDING
from bothends.trace.findings.base import BLOCKED_NS, Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.http_messages import is_whole_http_send
from bothends.trace.findings.turns import (
    Turn,
    ended_without_reading,
    is_waiting_to_read,
    peer_socket,
    stream_of,
)
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting

ByteOrder = Literal["big", "little"]
Mismatch = tuple[Literal["seen", "inferred"], str, str, tuple[int, ...]]  # certainty, basis, text, evidence

MIN_PADDING: Final = 16  # NULs at the end of a send that make it a buffer, and not a string
LARGE_READ: Final = 65_536  # bytes: a read of so much after a short header is a length, not a buffer's size
AGREEING: Final = 3  # messages that show a length prefix in a stream that is not known to its end
ENOUGH: Final = 1_000  # messages that show a length prefix for certain
SHOWN: Final = 12  # bytes of a payload in a text
_SMALLEST_BUFFER: Final = 1024  # bytes of a datagram that may be a whole buffer
_BUFFERS: Final = frozenset({4096, 8192, 16_384, 32_768, 65_536})  # bytes: reads of so much ask for no rest

_OTHER: Final[dict[ByteOrder, ByteOrder]] = {"big": "little", "little": "big"}
_C_ORDER: Final = {
    2: "n = ntohs(n);   /* the sender: n = htons(n); */",
    4: "n = ntohl(n);   /* the sender: n = htonl(n); */",
}
_PYTHON_ORDER: Final = {
    2: 'n, = struct.unpack("!H", header)   # the sender: struct.pack("!H", n)',
    4: 'n, = struct.unpack("!I", header)   # the sender: struct.pack("!I", n)',
}


@dataclass(frozen=True, slots=True)
class PrefixFormat:
    """How a stream is divided: a prefix of `width` bytes holds the length, which may include the prefix.

    `before`: bytes of each header in front of the length, such as a type or a version.
    """

    width: int
    order: ByteOrder
    includes_prefix: bool = False
    before: int = 0

    @property
    def header(self) -> int:
        """The bytes of a header, up to the end of the length."""
        return self.before + self.width

    def length(self, data: bytes) -> bytes:
        """Return the bytes of the length."""
        return data[self.before : self.header]

    def size(self, data: bytes) -> int:
        """Return the size of the payload after a prefix."""
        length = int.from_bytes(self.length(data), self.order)
        return length - (self.width if self.includes_prefix else 0)

    def misread(self, data: bytes) -> int:
        """Return the length that a reader of the other byte order takes from a prefix."""
        return int.from_bytes(self.length(data), _OTHER[self.order])

    def sizes(self, data: bytes, total: int) -> list[int]:
        """Return the payload sizes of a stream that consists of whole messages; none if it does not.

        `data` are the first bytes of the stream, `total` is its length. If the trace does not hold all
        bytes, `AGREEING` messages must be complete: any number fits a stream of unknown data.
        """
        at = 0
        found: list[int] = []
        while at < total:
            if at + self.header > len(data):
                return found if len(data) < total and len(found) > AGREEING else []
            size = self.size(data[at : at + self.header])
            at += self.header + size
            if size < 0 or at > total:
                return []
            found.append(size)
            if len(found) == ENOUGH:
                break
        return found


FRAMINGS: Final = tuple(
    PrefixFormat(width, order, includes)
    for includes in (False, True)
    for width in (4, 2)
    for order in ("big", "little")
)
# The length after a type, a version or a magic number.
FRAMINGS_WITH_TYPE: Final = tuple(
    PrefixFormat(width, order, before=before) for before in (1, 2, 4) for width in (4, 2) for order in _OTHER
)


def binary_lengths(data: bytes) -> tuple[int, int]:
    """Return the number that bytes are in network byte order, and the one in the other order."""
    return int.from_bytes(data, "big"), int.from_bytes(data, "little")


def length_byte_order(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a length prefix that one end writes in one byte order and the other end reads in the other."""
    for writer in trace_index.sockets("stream"):
        reader = peer_socket(trace_index, writer)
        if reader is None:
            continue
        sent, received = stream_of(trace_index, writer, "sent"), stream_of(trace_index, reader, "received")
        for framing in (*FRAMINGS, *FRAMINGS_WITH_TYPE):
            sizes = framing.sizes(sent.data, sent.total)
            misread = framing.misread(sent.data) if sizes else 0
            if (
                not sizes
                or not sizes[0]
                or misread == int.from_bytes(framing.length(sent.data), framing.order)
            ):
                continue
            found = _misread(trace_index, framing, sent, received, reader, sizes[0], misread)
            if found is None:
                continue
            certainty, basis, what, evidence = found
            prefix = framing.length(sent.data).hex(" ")
            size = sizes[0] + (framing.width if framing.includes_prefix else 0)
            changes = writer if framing.order == "little" else reader
            yield Finding(
                "length-byte-order",
                "The two ends use different byte orders"
                + " or widths" * (read_of_header(received, framing.header) is None)
                + " for the length of a message",
                f"The length {prefix} means {size} in {_name(framing.order)} byte order, as "
                f"{name_of(trace_index, sent.calls[0].process)} wrote it, and {misread} in "
                f"{_name(_OTHER[framing.order])} byte order{what}",
                "Use network byte order (big-endian) and a fixed width for lengths at both ends.",
                evidence,
                certainty=certainty,
                basis=basis,
                process=(sent if changes is writer else received).calls[0].process,
                sockets=(writer.number, reader.number),
                in_c=_C_ORDER[framing.width],
                in_python=_PYTHON_ORDER[framing.width],
            )
            break


def _misread(
    trace_index: TraceIndex,
    framing: PrefixFormat,
    sent: Turn,
    received: Turn,
    reader: Socket,
    size: int,
    misread: int,
) -> Mismatch | None:
    """Return how the reader showed that it took another length from the first prefix, or None."""
    sender = sent.calls[0].number
    header = read_of_header(received, framing.header)
    if framing.before and (header is None or (header.requested or 0) > framing.header):
        return None  # only the sizes of the reads show where the length is
    if header is not None:
        name = name_of(trace_index, header.process)
        following = next_read(trace_index, header)
        if following is not None and following.requested is not None:
            asked, expected = following.requested, (misread, misread - framing.width)
            evidence = (sender, header.number, following.number)
            if framing.before and (following.size >= asked or not is_stuck(trace_index, reader, following)):
                return None  # it got what it asked for
            if asked in expected and asked != size:
                return "seen", "", f": {name} read it and then asked for {asked} bytes.", evidence
            if framing.before or asked == size + framing.width * framing.includes_prefix:
                return None  # it takes the length as it was written: it may not count the prefix
            is_chunk = size < asked <= misread and received.total <= framing.width + size
            if is_chunk and is_stuck(trace_index, reader, following):
                basis = f"{name} asked for {asked} bytes after it had read the length, and got {size}"
                text = f": {name} probably read the second, and waits for so much."
                return "inferred", basis, text, evidence
            return None
        if not framing.before and misread > sent.total and ended_without_reading(trace_index, reader, header):
            basis = (
                f"{name} read the {framing.width} bytes of the length, and nothing of the {size} after them"
            )
            text = (
                f": {name} probably took the second (or expected text), and stopped before the {size} bytes "
                "of the message."
            )
            return "inferred", basis, text, (sender, header.number)
        return None
    if not received.calls or received.total != sent.total or misread <= received.total:
        return None
    waiting = is_waiting_to_read(trace_index, reader)
    last = received.calls[-1]
    if waiting is None or trace_index.end - (last.until or last.at) < 5 * BLOCKED_NS:
        return None
    if framing.width < 4 or any(call.size for call in trace_index.sends(reader)):
        return None
    name = name_of(trace_index, last.process)
    basis = f"{name} received the whole message, which the length describes to the last byte, and waits"
    text = (
        f". {capitalized(name)} has the message and waits for more: it probably took the second, another "
        f'width of the length (8 bytes, as of a long or the "L" of struct, are {wide:,}), or expected text.'
        if framing.width == 4 and (wide := _read_wider(framing, sent)) > received.total
        else f": {name} has the message and waits for more: it probably took the second, or expected text."
    )
    return "inferred", basis, text, (sender, last.number, waiting.number)


def _read_wider(framing: PrefixFormat, sent: Turn) -> int:
    """Return the length that a reader takes from twice the width, the first bytes of the message included."""
    return int.from_bytes(sent.data[framing.before : framing.header + framing.width], framing.order)


def is_stuck(trace_index: TraceIndex, reader: Socket, read: Call) -> bool:
    """Return whether the reader sent nothing from a read on: it waits for the rest, or has given up."""
    return not any(call.name in SENDING and call.size for call in trace_index.later_calls(read)) and (
        is_waiting_to_read(trace_index, reader) is not None
        or any(call.name in RECEIVING and not call.size for call in trace_index.later_calls(read))
    )


def read_of_header(received: Turn, width: int) -> Call | None:
    """Return the read that completed a header of `width` bytes, and read nothing beyond it."""
    total = 0
    for call in received.calls:
        total += call.size
        if total >= width:
            return call if total == width and (call.requested or width) <= width else None
    return None


def next_read(trace_index: TraceIndex, call: Call) -> Call | None:
    """Return the next receive of the same process, if it reads on before it sends or closes."""
    for following in trace_index.later_calls(call):
        if following.process != call.process:
            continue
        if following.name in RECEIVING and following.error != "EAGAIN":
            return following
        if following.name in SENDING or following.name in ("close", "shutdown"):
            return None
    return None


def text_as_length(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a reader that takes the first bytes of a text for a binary length, or the other way round."""
    yield from _length_as_digits(trace_index)
    yield from _text_through_buffer(trace_index)
    for writer in trace_index.sockets("stream"):
        reader = peer_socket(trace_index, writer)
        if reader is None:
            continue
        sent, received = stream_of(trace_index, writer, "sent"), stream_of(trace_index, reader, "received")
        for width in (4, 8, 2):
            text = sent.data[:width]
            header = read_of_header(received, width)
            if header is None or len(text) < width or not _is_text(sent.data):
                continue
            numbers = binary_lengths(text)
            following, name = next_read(trace_index, header), name_of(trace_index, header.process)
            shown = formatting.quoted(text, width, width)
            certainty: Literal["seen", "inferred"] = "seen"
            basis, evidence = "", tuple[int, ...]()
            if following is not None and following.requested in numbers and width > 1:
                asked = following.requested
                what = f"{name} took the text {shown} for a binary length, and asked for {asked} bytes."
                evidence = (sent.calls[0].number, header.number, following.number)
            elif (
                following is not None
                and width == 4
                and min(numbers) >= (following.requested or 0) >= LARGE_READ
                and is_stuck(trace_index, reader, following)
            ):
                certainty = "inferred"
                basis = f"after 4 bytes it asked for {following.requested}, and never answered"
                what = f"{name} probably took the text {shown} for a binary length ({numbers[0]})."
                evidence = (sent.calls[0].number, header.number, following.number)
            elif (
                width == 4
                and following is None
                and sent.total > width + 2
                and not any(call.size for call in trace_index.sends(reader))
                and ended_without_reading(trace_index, reader, header)
                and (trace_index.process(header.process).status or 0) > 0
            ):
                certainty = "inferred"
                basis = f"{name} read {width} bytes of a text, and exited with an error"
                what = (
                    f"{name} read the first {width} bytes of the text that the peer sent, {shown}, and "
                    f"exited with an error: it probably took them for a binary length ({numbers[0]})."
                )
                evidence = (sent.calls[0].number, header.number)
            else:
                continue
            yield _text_finding(
                what, evidence, header.process, (writer.number, reader.number), certainty, basis
            )
            break


def _text_through_buffer(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a reader whose buffer took the text as a whole, and that then asks for the rest of a length."""
    for writer in trace_index.sockets("stream"):
        reader = peer_socket(trace_index, writer)
        sent = stream_of(trace_index, writer, "sent") if reader is not None else None
        if reader is None or sent is None or not _is_text(sent.data):
            continue
        consumed = 0
        for call in trace_index.calls_at(reader.number, *RECEIVING):
            if call.failed or "MSG_PEEK" in call.flags:
                continue
            widths = (2, 4, 8) if call.requested not in _BUFFERS else ()
            width = next(
                (
                    each
                    for each in widths
                    if consumed > each
                    and (call.requested or 0) + consumed - each in binary_lengths(sent.data[:each])
                ),
                0,
            )
            if width:
                length = (call.requested or 0) + consumed - width
                name, shown = name_of(trace_index, call.process), formatting.quoted(sent.data, width, width)
                yield _text_finding(
                    f"{capitalized(name)} took {shown}, the first {width} bytes of the text "
                    f"{formatting.quoted(sent.data, sent.total, 24)}, for a binary length of {length:,}. It "
                    f"had read {consumed:,} bytes into its buffer, and asked for the other "
                    f"{call.requested:,}.",
                    (sent.calls[0].number, call.number),
                    call.process,
                    (writer.number, reader.number),
                )
                break
            consumed += call.size


def _text_finding(
    text: str,
    evidence: tuple[int, ...],
    process: int,
    sockets: tuple[int, ...],
    certainty: Literal["seen", "inferred"] = "seen",
    basis: str = "",
) -> Finding:
    return Finding(
        "text-as-length",
        "One end sends text where the other end reads a binary length",
        text,
        "Agree on one format: a binary length in network byte order, or a line of digits.",
        evidence,
        certainty=certainty,
        basis=basis,
        process=process,
        sockets=sockets,
        in_c="n = htonl(length); send_all(s, &n, 4); send_all(s, text, length);",
        in_python='s.sendall(struct.pack("!I", len(data)) + data)',
    )


def _length_as_digits(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a reader that takes the hexadecimal digits of a binary length for decimal ones: 28 for 00 28."""
    for reader in trace_index.sockets("stream"):
        for header in trace_index.receives(reader):
            if header.size not in (2, 4, 8) or header.requested != header.size:
                continue
            digits = header.data[: header.size].hex()
            if not digits.isdecimal():
                continue
            length, following = int(digits, 16), next_read(trace_index, header)
            if following is None or following.requested != int(digits) or int(digits) in (0, length):
                continue
            senders = trace_index.senders_of(header)
            shown = " ".join(f"{byte:02x}" for byte in header.data[: header.size])
            name = name_of(trace_index, header.process)
            yield Finding(
                "text-as-length",
                "A binary length is read as if it were text",
                f"The length {shown} means {length}, and {name} asked for {int(digits)} bytes after it: it "
                "took the hexadecimal digits for decimal ones.",
                "Convert the bytes themselves: int.from_bytes(), struct.unpack() or ntohl().",
                (*(each.number for each in senders[:1]), header.number, following.number),
                process=header.process,
                sockets=(reader.number,),
                in_c="memcpy(&n, header, 4); n = ntohl(n);",
                in_python='n = int.from_bytes(header, "big")   # not int(header.hex())',
            )
            break


def whole_buffer(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a short message that was sent with the unused rest of its buffer."""
    for socket in trace_index.sockets("stream", "datagram", "seqpacket"):
        read: Call | None = None
        records: dict[int, bool] = {}  # by size
        for call in trace_index.calls_by_socket[socket.number]:
            if call.name in RECEIVING and call.size:
                read = call
            if call.name not in SENDING or not call.size or not call.data:
                continue
            rest = _unused_rest(call, read, is_datagram=socket.kind == "datagram")
            if rest is None:
                continue
            if rest.certainty == "inferred":
                if call.size not in records:
                    records[call.size] = _is_record(trace_index, socket, call)
                if records[call.size]:
                    continue
            if rest.is_behind and read is not None:
                yield _not_flipped(trace_index, socket, read, call, rest)
                break
            yield Finding(
                "whole-buffer",
                "A whole buffer is sent for a short message",
                f"{capitalized(name_of(trace_index, call.process))} "
                f"{'probably ' * (rest.certainty == 'inferred')}sent {call.size} bytes for the "
                f"{len(rest.text)} bytes {formatting.quoted(rest.text, len(rest.text), SHOWN)}: {rest.what}.",
                "Send as many bytes as the message has, and not the size of the buffer.",
                (*((read.number,) if rest.is_echo and read is not None else ()), call.number),
                certainty=rest.certainty,
                basis=rest.basis,
                process=call.process,
                sockets=(socket.number,),
                in_c="send(s, buffer, n, 0);   /* n as recv() or snprintf() returned it */",
                in_python="s.sendall(buffer[:n])   # n as recv_into() returned it",
            )
            break


def _not_flipped(trace_index: TraceIndex, socket: Socket, read: Call, call: Call, rest: _Rest) -> Finding:
    """Return the finding for a program that sends what is behind the message in its buffer."""
    return Finding(
        "whole-buffer",
        "The unused rest of a buffer is sent in place of the message",
        f"{capitalized(name_of(trace_index, call.process))} read "
        f"{formatting.quoted(rest.text, read.size, SHOWN)} and then sent {call.size} NULs: {rest.what}.",
        "In Java call flip() between read() and write(): it sets the limit to the position, and the position "
        "to 0. Then clear() or compact() before the next read().",
        (read.number, call.number),
        process=call.process,
        sockets=(socket.number,),
        in_c="send(s, buffer, n, 0);   /* not buffer + n */",
        in_python="s.sendall(buffer[:n])   # n as recv_into() returned it",
    )


@dataclass(frozen=True, slots=True)
class _Rest:
    """The unused rest of a buffer: the message before it, and what shows it."""

    text: bytes
    what: str
    certainty: Literal["seen", "inferred"] = "seen"
    basis: str = ""
    is_echo: bool = False
    is_behind: bool = False  # only the rest was sent, and not the message: flip() is missing


def _unused_rest(call: Call, read: Call | None, *, is_datagram: bool) -> _Rest | None:
    """Return what a send holds beside its message, or None.

    A send of as many bytes as the last read had room for, which begins with the fewer bytes that the read
    returned, is the read's buffer. Otherwise a text must have `MIN_PADDING` NULs after it.
    """
    data = call.data[: call.size]
    if read is not None and read.requested == call.size and call.size - read.size >= MIN_PADDING:
        text = read.data[: read.size]
        if len(text) == read.size <= len(data) and data.startswith(text):
            rest = "are NULs" if not data[read.size :].strip(b"\0") else "are what was in the buffer before"
            what = (
                f"recv() had returned {read.size} bytes into a buffer of {call.size}, and the other "
                f"{call.size - read.size} bytes {rest}"
            )
            return _Rest(text, what, is_echo=True)
    is_rest = read is not None and read.size and (read.requested or 0) - read.size == call.size
    if read is not None and is_rest and len(data) >= min(call.size, 4096) and not data.strip(b"\0"):
        what = (
            f"recv() had returned {read.size} bytes into a buffer of {read.requested}, and the "
            f"{call.size} NULs are the rest of that buffer, from the position after them"
        )
        return _Rest(read.data[: read.size], what, is_echo=True, is_behind=True)
    known = _text_before_padding(data) if len(call.data) >= min(call.size, 4096) else None
    if known is None and is_datagram and (filled := _filled_part_of_buffer(data, call.size)):
        return _Rest(
            filled,
            f"from byte {len(filled):,} on there are only NULs, and {call.size:,} is the size of a buffer",
            "inferred",
            f"NULs after {len(filled):,} bytes, and a size that is a power of two",
        )
    if known is None or is_whole_http_send(data, call.size) or _announces(known, call.size):
        return None
    what = f"{call.size - len(known)} NULs follow, the unused rest of a buffer"
    if call.size > len(data):
        basis = f"the first {len(data)} bytes hold a short text and NULs"
    else:
        basis = f"{call.size - len(known)} NULs after a text of {len(known)} bytes"
    return _Rest(known, what, "inferred", basis)


def _filled_part_of_buffer(data: bytes, size: int) -> bytes:
    """Return what a buffer holds before its unused rest, if several messages were written to it; or b"".

    Node.js takes short buffers from a pool of 8 KiB: `new Uint8Array(buffer.buffer)` is all of it.
    """
    filled = data.rstrip(b"\0")
    is_power_of_two = size >= _SMALLEST_BUFFER and size & (size - 1) == 0
    if not is_power_of_two or len(data) < min(size, 4096) or not 0 < len(filled) <= len(data) // 4:
        return b""
    return filled if re.search(rb"[ -~]{8}", filled) else b""


def _text_before_padding(data: bytes) -> bytes | None:
    """Return the text that NULs fill up to the size of a buffer; None if the data is something else."""
    text = data.rstrip(b"\0")
    padding = len(data) - len(text)
    is_padded = padding >= MIN_PADDING and padding >= len(data) // 4
    return text if is_padded and text and _is_text(text) else None


def _announces(text: bytes, size: int) -> bool:
    """Return whether a text holds the number of NULs that follow it: they are a body, and no rest."""
    return any(int(number) == size - len(text) for number in re.findall(rb"\d{1,12}", text))


def _is_record(trace_index: TraceIndex, socket: Socket, call: Call) -> bool:
    """Return whether records of this size are part of a format: both ends send or read them."""
    peer = peer_socket(trace_index, socket)
    if peer is None:
        return False
    received = trace_index.receives(peer)
    answers = [each.size for each in trace_index.sends(peer)]
    return (
        call.size in answers
        or (any(each.requested == call.size for each in received) and not answers)
        or _reads_to(received, call.size)
    )


def _reads_to(received: list[Call], size: int) -> bool:
    """Return whether a reader asks for the rest until it has `size` bytes, or waits for all of them."""
    return any(
        (each.requested == size and "MSG_WAITALL" in each.flags)
        or (each.requested is not None and each.requested + earlier.size == earlier.requested == size)
        for earlier, each in zip(received, received[1:] + received[-1:], strict=True)
    )


def _is_text(data: bytes) -> bool:
    try:
        text = data[:2048].decode("utf-8", "strict" if len(data) <= 2048 else "ignore")
    except UnicodeDecodeError:
        return False
    return bool(text) and all(each.isprintable() or each in "\r\n\t" for each in text)


def _name(order: ByteOrder) -> str:
    return "big-endian (network)" if order == "big" else "little-endian (host)"
