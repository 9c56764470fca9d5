"""Parse what tracefs provides: the formats of tracepoints, and the pages of a trace buffer. Pure.

    parse_format      the `format` file of a tracepoint: its fields, and the names of their values
    parse_page        a page of per_cpu/cpuN/trace_pipe_raw: the records in it, and their times
    addresses_of      the addresses among the fields of a record

What differs between kernels, and what follows:

1. Tracepoints gain, lose and move fields, and the numbers of drop reasons change with each release. So
   offsets and names come from the `format` file: its fields, and __print_symbolic in its print fmt.
2. Addresses are ports and address fields in most tracepoints, and a struct sockaddr (28 bytes) in others.
3. The layout of a page is an ABI of libtraceevent: a header with a time and a length, then records of 4-byte
   words. A record starts with 5 bits of type or length and 27 bits of nanoseconds since the record before it
   (`events/header_event`).
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final, NamedTuple, TypeAlias

from bothends.trace.model import SocketAddress

FieldValue: TypeAlias = int | bytes

_ID: Final = re.compile(r"^ID:\s*(\d+)", re.MULTILINE)
_FIELD: Final = re.compile(
    r"^\s*field:(?P<declaration>[^;]+);\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);"
    r"(?:\s*signed:(?P<signed>\d);)?",
    re.MULTILINE,
)
_NAME: Final = re.compile(r"(\w+)\s*(\[[^\]]*\])?\s*$")
_SYMBOLS: Final = re.compile(r"__print_symbolic\(\s*REC->(\w+)\s*,((?:\s*\{[^{}]*\}\s*,?)+)\s*\)")
_SYMBOL: Final = re.compile(r'\{\s*(-?(?:0x[0-9a-fA-F]+|\d+))\s*,\s*"([^"]*)"\s*\}')

# Types of a record in a page; smaller numbers are a length in words (include/linux/ring_buffer.h).
_LONG_DATA, _PADDING, _TIME_EXTEND, _TIME_STAMP = 0, 29, 30, 31
_DELTA_BITS: Final = 27
_MISSED: Final = 1 << 31  # in a page's length: records before this page were overwritten
_LENGTH_MASK: Final = (1 << 30) - 1
_TIMESTAMP_BITS: Final = (1 << 59) - 1  # an absolute time has the lowest 59 bits

_AF_INET: Final = 2
_AF_INET6: Final = 10
_SOCKADDR_SIZE: Final = 28  # struct sockaddr_in6
MAX_FORMAT: Final = 1 << 20  # characters: more than any format file has


class FormatField(NamedTuple):
    """A field of a tracepoint's record. `is_bytes`: it is an array."""

    offset: int
    size: int
    is_signed: bool
    is_bytes: bool


@dataclass(frozen=True, slots=True)
class EventFormat:
    """The format of a tracepoint. `number` identifies its records; `symbols` names values, by field."""

    name: str
    number: int
    fields: dict[str, FormatField]
    symbols: dict[str, dict[int, str]] = field(default_factory=dict)

    def decode(self, record: bytes) -> dict[str, FieldValue]:
        """Return the fields of a record. Fields beyond its end are left out."""
        found: dict[str, FieldValue] = {}
        for name, (offset, size, is_signed, is_bytes) in self.fields.items():
            data = record[offset : offset + size]
            if len(data) == size:
                found[name] = data if is_bytes else int.from_bytes(data, sys.byteorder, signed=is_signed)
        return found

    def symbol(self, name: str, value: int) -> str:
        """Return the kernel's name of a field's value, or "" if it has none."""
        return self.symbols.get(name, {}).get(value, "")

    def value_of(self, name: str, symbol: str) -> int | None:
        """Return the value of a field that has this name, or None."""
        return next((value for value, each in self.symbols.get(name, {}).items() if each == symbol), None)


def parse_format(text: str) -> EventFormat:
    """Parse a tracepoint's `format` file.

    Raises:
        ValueError: it is not one.
    """
    text = text[:MAX_FORMAT]
    number = _ID.search(text)
    if number is None:
        raise ValueError("no ID in a tracepoint's format")
    fields = {}
    for found in _FIELD.finditer(text):
        name = _NAME.search(found["declaration"])
        if name is not None:
            fields[name[1]] = FormatField(
                int(found["offset"]), int(found["size"]), found["signed"] == "1", name[2] is not None
            )
    first = text.splitlines()[0] if text else ""
    symbols = {
        name: {int(value, 0): symbol for value, symbol in _SYMBOL.findall(entries)}
        for name, entries in _SYMBOLS.findall(text)
    }
    return EventFormat(first.partition(":")[2].strip(), int(number[1]), fields, symbols)


class PageRecord(NamedTuple):
    """A record of a page: its time on the trace clock, in nanoseconds; its tracepoint; its bytes."""

    at: int
    format_number: int
    data: bytes


def parse_page(page: bytes) -> tuple[list[PageRecord], bool]:
    """Return the records of a page of trace_pipe_raw, and whether records before it were lost."""
    word = struct.calcsize("@l")  # the length is a local_t
    if len(page) < 8 + word:
        return [], False
    at = int.from_bytes(page[:8], sys.byteorder)
    length = int.from_bytes(page[8 : 8 + min(word, 4)], sys.byteorder)
    if sys.byteorder == "big" and word == 8:
        length = int.from_bytes(page[12:16], "big")
    start = 8 + word
    end = min(start + (length & _LENGTH_MASK), len(page))
    return list(_records(page[start:end], at)), bool(length & _MISSED)


def _records(data: bytes, at: int) -> Iterator[PageRecord]:
    position = 0
    while position + 4 <= len(data):
        header = int.from_bytes(data[position : position + 4], sys.byteorder)
        if sys.byteorder == "little":
            kind, delta = header & 31, header >> 5
        else:
            kind, delta = header >> _DELTA_BITS, header & ((1 << _DELTA_BITS) - 1)
        position += 4
        extra = int.from_bytes(data[position : position + 4], sys.byteorder)
        if kind == _PADDING:
            if not delta:
                return
            position += extra
        elif kind == _TIME_EXTEND:
            at += (extra << _DELTA_BITS) + delta
            position += 4
        elif kind == _TIME_STAMP:
            at = (at & ~_TIMESTAMP_BITS) | ((extra << _DELTA_BITS) + delta)
            position += 4
        else:
            at += delta
            size = kind * 4
            if kind == _LONG_DATA:
                size = extra - 4
                position += 4
            if size <= 0:
                return
            record = data[position : position + size]
            position += size
            if len(record) >= 2:
                yield PageRecord(at, int.from_bytes(record[:2], sys.byteorder), record)


def addresses_of(fields: dict[str, FieldValue]) -> tuple[SocketAddress, SocketAddress] | None:
    """Return source and destination among a record's fields, or None if it has none."""
    source, destination = fields.get("saddr"), fields.get("daddr")
    if not isinstance(source, bytes) or not isinstance(destination, bytes):
        return None
    if len(source) >= _SOCKADDR_SIZE:
        ends = _sockaddr(source), _sockaddr(destination)
        return (ends[0], ends[1]) if ends[0] is not None and ends[1] is not None else None
    family, here, there = fields.get("family"), fields.get("sport"), fields.get("dport")
    if not isinstance(here, int) or not isinstance(there, int):
        return None
    if family == _AF_INET6:
        source, destination = fields.get("saddr_v6", b""), fields.get("daddr_v6", b"")
    if not isinstance(source, bytes) or not isinstance(destination, bytes):
        return None
    if len(source) not in (4, 16) or len(destination) != len(source):
        return None
    return SocketAddress(_host(source), here), SocketAddress(_host(destination), there)


def _sockaddr(data: bytes) -> SocketAddress | None:
    family = int.from_bytes(data[:2], sys.byteorder)
    port = int.from_bytes(data[2:4], "big")
    if family == _AF_INET:
        return SocketAddress(_host(data[4:8]), port)
    return SocketAddress(_host(data[8:24]), port) if family == _AF_INET6 else None


def _host(data: bytes) -> str:
    address = ip_address(data)
    return str(getattr(address, "ipv4_mapped", None) or address)
