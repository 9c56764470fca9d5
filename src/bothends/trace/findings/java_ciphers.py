"""A rule about Java's cipher streams: flush() does not send the last block. Pure.

A block cipher with padding keeps what does not fill a block until close() calls doFinal(): of a line of 28
bytes 16 are sent. CipherInputStream reads 512 bytes at a time.
"""

from __future__ import annotations

from typing import Final

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of, runs
from bothends.trace.findings.standstill import Standstill, ThreadState
from bothends.trace.model import Socket

_BUFFER: Final = 512  # bytes: of CipherInputStream, and of InflaterInputStream
_BLOCKS: Final = (16, 8)  # bytes: AES, and DES
_COMPRESSED: Final = (b"\x1f\x8b", b"\x78\x01", b"\x78\x9c", b"\x78\xda")


def last_block_kept(
    trace_index: TraceIndex,
    each: Standstill,
    peer: Socket,
    read: ThreadState,
    data: bytes,
    size: int,
    state: str,
    events: tuple[int, ...],
) -> Finding | None:
    """Return the finding for whole blocks that were sent to a CipherInputStream that waits for more; or None.

    Args:
        data: the first bytes of what was sent last.
        size: how many were.
        state: what both ends do, without the end of the sentence.
        events: the evidence of `state`.
    """
    block = next((each for each in _BLOCKS if size % each == 0), 0)
    is_cipher_buffer = read.call is not None and read.call.requested == _BUFFER
    is_text = all(32 <= byte < 127 or byte in b"\r\n\t" for byte in data)
    if not block or not is_cipher_buffer or is_text or data.startswith(_COMPRESSED):
        return None
    if not runs(trace_index, read.process, "java"):
        return None
    name, other = name_of(trace_index, each.waiter.process), name_of(trace_index, read.process)
    return Finding(
        "unflushed",
        "The end of a message is probably in a cipher, which keeps the last block",
        f"{state}. {capitalized(other)} reads 512 bytes at a time, as CipherInputStream does, and got whole "
        f"blocks of {block} bytes: probably {name} writes to a CipherOutputStream. Its flush() does not send "
        "what does not fill a block; only close() does, with the padding.",
        "Encrypt each message by itself with doFinal() and send its length before it, or use a cipher "
        "without blocks (AES/CTR/NoPadding). TLS (SSLSocket) does all this.",
        events,
        "inferred",
        "the size is a multiple of a block, the bytes are no text, and Java reads 512 at a time",
        process=each.waiter.process,
        sockets=(each.socket.number, peer.number),
        in_c="",
        in_python="",
    )
