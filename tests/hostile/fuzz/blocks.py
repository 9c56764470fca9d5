"""Trace files of blocks as lines of JSON and back, so that what is compressed can be mutated.

    {"mark": "BEtr", "points": 3, "state": "...", "rows": {...}, "data": "...", "first_at": 0, "last_at": 9}

Bytes are text in Latin-1. What is missing or of another type stands for nothing.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

from bothends.trace.trace_blocks import FIRST_LINE, HEADER, BlockHeader

_MOST = (1 << 32) - 1


def pack(lines: bytes) -> bytes:
    """Return the file of blocks that lines describe."""
    return FIRST_LINE + b"".join(map(_pack_block, lines.splitlines()))


def unpack(file: bytes) -> bytes:
    """Return the lines that describe a file of blocks."""
    at, lines = len(FIRST_LINE), []
    while at < len(file):
        header = BlockHeader(*HEADER.unpack_from(file, at))
        at += HEADER.size
        packed_state = file[at : at + header.packed_state]
        at += header.packed_state
        packed = file[at : at + header.packed]
        at += header.packed
        content = zlib.decompress(packed) if packed else b""
        block = {
            "mark": header.magic.decode(),
            "points": header.points,
            "state": zlib.decompress(packed_state).decode() if packed_state else "",
            "rows": json.loads(content[: header.rows] or "null"),
            "data": content[header.rows :].decode("latin-1"),
            "first_at": header.first_at,
            "last_at": header.last_at,
        }
        lines.append(json.dumps(block).encode())
    return b"\n".join(lines) + b"\n"


def _pack_block(line: bytes) -> bytes:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return line  # no block: the reader must notice
    block: dict[str, Any] = found if isinstance(found, dict) else {}
    state = _bytes_of(block.get("state", ""))
    rows = json.dumps(block["rows"]).encode() if block.get("rows") is not None else b""
    data = _bytes_of(block.get("data", ""))
    packed_state = zlib.compress(state) if state else b""
    packed = zlib.compress(rows + data) if rows else b""
    try:
        header = HEADER.pack(
            _bytes_of(block.get("mark", ""))[:4].ljust(4), _number(block.get("points")) & _MOST, len(state),
            len(rows), len(data) if rows else 0, len(packed_state), len(packed),
            _number(block.get("first_at")), _number(block.get("last_at")),
        )  # fmt: skip
    except struct.error:
        header = bytes(HEADER.size)
    return header + packed_state + packed


def _bytes_of(value: object) -> bytes:
    return value.encode("latin-1", "replace") if isinstance(value, str) else b""


def _number(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 64 else 0
