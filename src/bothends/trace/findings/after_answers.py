"""What a client may wait for when it has read an answer: what keeps the conversation from going on. Pure.

set fan 3\\nget fan        the last line has no end, and only the others are answered
1f 8b 08 ...              only the header of a compressed answer was sent
WELCOME\\nREADY\\n        the line is in the buffer of another reader of the connection
"""

from __future__ import annotations

from typing import Final

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.standstill import Standstill, age, bytes_text, call_name, evidence
from bothends.trace.findings.turns import Turn
from bothends.trace.model import Socket
from bothends.trace.rendering import formatting

_LINE_READERS: Final = frozenset({4096, 8192, 131_072})  # bytes that readers of lines ask for


def last_line_unended(
    trace_index: TraceIndex, each: Standstill, peer: Socket, spoken: list[Turn]
) -> Finding | None:
    """Return the finding for a client whose last line has no end, at a server that answered the others."""
    request = next((turn for turn in reversed(spoken) if turn.kind == "received"), None)
    answers = spoken[-1].data.count(b"\n")
    if request is None or len(request.data) < request.total:
        return None
    lines, last = request.data.count(b"\n"), request.data.rpartition(b"\n")[2]
    is_text = all(32 <= byte < 127 or byte in b"\r\t" or byte > 127 for byte in last)
    if not last or not lines or not is_text or (answers != lines and len(spoken[-1].calls) != lines):
        return None
    client = each.sends(peer)[-1].process
    name, other = name_of(trace_index, client), name_of(trace_index, each.waiter.process)
    return Finding(
        "no-newline",
        "The last line has no end, and each end waits for the other",
        f"{capitalized(name)} sent {lines + 1} lines, the last one, "
        f"{formatting.quoted(last, len(last), 24)}, without a newline. {capitalized(other)} has answered "
        f"{'the other one' if lines == 1 else f'the other {lines}'}, and waits in {call_name(each.waiter)} "
        f"for {age(each, each.waiter)}: probably it reads up to the newline.",
        "End each message with the newline that the peer reads up to, the last one too.",
        evidence(request.calls[-1], each.waiter),
        "inferred",
        "there is one answer for each whole line, and none for the rest",
        process=client,
        sockets=(each.socket.number, peer.number),
        in_c='send(fd, "get fan\\n", 8, 0);',
        in_python='s.sendall("".join(line + "\\n" for line in lines).encode())   # not "\\n".join(lines)',
    )


def compressed_unflushed(each: Standstill, peer: Socket, spoken: list[Turn]) -> Finding | None:
    """Return the finding for an answer of which only the header of the compression was sent."""
    answers = [turn for turn in spoken if turn.kind == "sent"]
    if len(answers) != 1:
        return None
    answer = answers[0]
    is_gzip = answer.total == 10 and answer.data.startswith(b"\x1f\x8b\x08")
    is_zlib = answer.total == 2 and answer.data in (b"\x78\x01", b"\x78\x9c", b"\x78\xda")
    if not is_gzip and not is_zlib:
        return None
    return Finding(
        "unflushed",
        "A compressed answer is still in the compressor",
        f"Only the header of the {'gzip' if is_gzip else 'zlib'} format was sent, "
        f"{bytes_text(answer.total)}, and both ends wait: the answer itself is still in the compressor, "
        f"for {age(each, each.waiter)}.",
        "Flush the compressor after each message (Z_SYNC_FLUSH), or finish it.",
        evidence(answer.calls[-1], each.waiter),
        process=each.waiter.process,
        sockets=(each.socket.number, peer.number),
        in_c="deflate(&stream, Z_SYNC_FLUSH);",
        in_python="s.sendall(compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))",
    )


def holds_lines(each: Standstill, peer: Socket, data: bytes) -> bool:
    """Return whether one read of a client took several lines into the buffer of a reader of lines."""
    reads = [call for call in each.receives(peer) if call.size]
    return bool(reads) and reads[-1].data.count(b"\n") > 1 and (reads[-1].requested or 0) in _LINE_READERS
