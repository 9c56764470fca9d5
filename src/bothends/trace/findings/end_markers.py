"""A rule about a marker at the end of data, which the reader looks for in each read by itself. Pure.

    send(file)  send("DONE")     recv() ... recv() = the end of the file + "DONE"     recv() waits

A stream keeps no boundaries of sends: the marker may come with the bytes before it, or in two reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.standstill import age, bytes_text, evidence, standstills
from bothends.trace.findings.turns import Turn, peer_socket, turns
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting

_MAX_MARKER: Final = 40  # bytes
_MARKER: Final = re.compile(
    rb"(?i)[\W_]*(?:the[\W_]*)?(?:end|eof|eot|eom|done|stop|quit|exit|bye|fin|finish|finished|over|completed?|"
    rb"close|terminate)(?:[\W_]*(?:of[\W_]*)?(?:file|data|message|msg|transfer|stream|transmission|upload|"
    rb"download))?[\W_]*"
)


def marker_joined(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find an end marker that no read returned by itself, at a reader that waits for more."""
    done = set[int]()
    for each in standstills(trace_index):
        if each.peer is None or each.unread or each.unread_here or each.socket.number in done:
            continue
        states = [each.waiter, *each.peers]
        for writer, reader in (each.socket, each.peer), (each.peer, each.socket):
            marker = _marker(trace_index, writer)
            read = _read_of(trace_index, reader)
            waits = next((state for state in states if state.waits_for(reader.number)), None)
            if marker is None or read is None or waits is None or read.size == marker.size:
                continue
            done |= {writer.number, reader.number}
            sender, name = name_of(trace_index, marker.process), name_of(trace_index, read.process)
            shown = formatting.quoted(marker.data, marker.size, _MAX_MARKER)
            how = (
                f"together with the {bytes_text(read.size - marker.size)} before it"
                if read.size > marker.size
                else "in several reads"
            )
            yield Finding(
                "marker-joined",
                "The marker at the end of the data did not come in a read of its own",
                f"{capitalized(sender)} sent {shown} in a send of its own, and {name} read it {how}: a "
                f"stream keeps no boundaries of sends. {capitalized(name)} waits for more, for "
                f"{age(each, waits)}: probably it compares what each recv() returns with the marker.",
                "Send the length of the data first, or end the direction with shutdown(SHUT_WR) and read up "
                "to EOF. If a marker is needed, collect what is read and look for the marker at its end; "
                "data that holds the marker ends too early then.",
                evidence(marker, read, waits),
                "inferred",
                f"the last send looks like an end marker, and no read returned {bytes_text(marker.size)}",
                process=read.process,
                sockets=(writer.number, reader.number),
                in_c="while (left && (n = recv(fd, buf, min(left, sizeof buf), 0)) > 0) left -= n;",
                in_python='s.sendall(struct.pack("!Q", size)); s.sendall(data)   # the reader counts',
            )
            break


def _marker(trace_index: TraceIndex, writer: Socket) -> Call | None:
    """Return the last send of a socket, if it looks like an end marker after other data; or None."""
    turn = _last_turn(trace_index, writer, "sent")
    if turn is None or len(turn.calls) < 2:
        return None
    last = turn.calls[-1]
    whole = len(last.data) == last.size and last.size <= _MAX_MARKER
    return last if whole and _MARKER.fullmatch(last.data) else None


def _read_of(trace_index: TraceIndex, reader: Socket) -> Call | None:
    """Return the read that completed all that was sent, or None."""
    turn = _last_turn(trace_index, reader, "received")
    return turn.calls[-1] if turn is not None else None


def _last_turn(trace_index: TraceIndex, socket: Socket, kind: str) -> Turn | None:
    spoken = turns(trace_index, socket)
    return spoken[-1] if spoken and spoken[-1].kind == kind and peer_socket(trace_index, socket) else None
