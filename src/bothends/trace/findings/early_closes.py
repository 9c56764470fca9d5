"""A rule about clients that close the connection before they read the answer. Pure.

In Java close() of a stream of a socket closes the socket, both directions of it. Programs call it to tell the
server that the request is complete, and fail when they read.

client ── 20,000 bytes, FIN ──> server
client   close()
client <───── "Received" ────── server    RST is the reply
client   exit status 1
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import RECEIVING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of, runs
from bothends.trace.findings.exits import PROMPT_EXIT_NS
from bothends.trace.findings.standstill import bytes_text
from bothends.trace.findings.turns import peer_socket
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting

_SHOWN: Final = 24  # bytes of the answer in a text


def closed_before_answer(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a client that sent a request, closed the connection, and failed without the answer."""
    for socket in trace_index.sockets("stream"):
        peer = peer_socket(trace_index, socket)
        sends = trace_index.sends(socket)
        if peer is None or socket.accepted_from is not None or socket.is_wrapped or not sends:
            continue
        close = _closed_at_once(trace_index, socket, sends[-1])
        if close is None or close.until is None:
            continue
        ended, status = trace_index.ended_at(close.process), trace_index.process(close.process).status
        if not status or status < 0 or ended is None or ended - close.until > PROMPT_EXIT_NS:
            continue
        answer = next((call for call in trace_index.sends(peer) if call.at >= close.at), None)
        if answer is None or trace_index.holders_at(socket.number, close.until):
            continue
        client, server = name_of(trace_index, close.process), name_of(trace_index, answer.process)
        is_java = runs(trace_index, close.process, "java")
        yield Finding(
            "closed-before-answer",
            "The client closed the connection before it read the answer",
            f"{capitalized(client)} sent its request and closed the connection "
            f"{formatting.duration(max(0, close.at - (sends[-1].until or sends[-1].at)))} later, without a "
            f"read. {capitalized(server)} then sent "
            f"{formatting.quoted(answer.data, answer.size, _SHOWN)}, {bytes_text(answer.size)}, which "
            f"nothing receives, and {client} exited with status {status}."
            + " In Java close() of one stream of a socket closes the whole socket."
            * is_java,
            "Close the connection after the answer. To tell the server that the request is complete, end one "
            "direction only: shutdown(SHUT_WR), in Java socket.shutdownOutput().",
            (sends[-1].number, close.number, answer.number),
            process=close.process,
            sockets=(socket.number, peer.number),
            in_c="shutdown(fd, SHUT_WR);  /* and close(fd) after the answer */",
            in_python="s.shutdown(socket.SHUT_WR)  # and s.close() after the answer",
        )


def _closed_at_once(trace_index: TraceIndex, socket: Socket, last: Call) -> Call | None:
    """Return the close() after the last send, if the program did not read, or wait, before; or None."""
    if any(call.name in RECEIVING for call in trace_index.calls_by_socket[socket.number]):
        return None
    waits = (call for call in trace_index.calls_by_process[last.process] if socket.number in call.sockets)
    if any(call.at >= last.at for call in waits):
        return None
    closes = (call for call in trace_index.later_calls(last) if call.name == "close" and not call.failed)
    return next(closes, None)
