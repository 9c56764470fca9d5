"""A rule about connections that a program resets on purpose: SO_LINGER with time 0. Pure.

close() then sends RST instead of FIN (socket(7)): the kernel discards the bytes that were not sent yet, and
the peer gets ECONNRESET where it expects EOF.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import RECEIVING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.standstill import bytes_text, call_name
from bothends.trace.findings.turns import peer_socket, stream_of
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting

SHOWN: Final = 24  # bytes of an answer in a text

_LINGER: Final = re.compile(r"l_onoff=([1-9]\d*), *l_linger=0\b")
_NO_LINGER: Final = re.compile(r"l_onoff=0|l_linger=[1-9]")


def linger_reset(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a connection that SO_LINGER with time 0 reset, so that the peer lost bytes or its read failed."""
    for socket in trace_index.sockets("stream"):
        found = _option_and_close(trace_index, socket)
        peer = peer_socket(trace_index, socket)
        if found is None or peer is None or socket.family == "unix":
            continue
        option, close = found
        failed = next(
            (
                call
                for call in trace_index.calls_by_socket[peer.number]
                if call.name in RECEIVING and call.error == "ECONNRESET"
            ),
            None,
        )
        if failed is None or any(
            call.name in ("close", "shutdown") and call.number < failed.number
            for call in trace_index.calls_by_socket[peer.number]
        ):
            continue  # the peer had closed, or read all it wanted
        sent = sum(each.size for each in trace_index.sends(socket))
        lost = sent - sum(each.size for each in trace_index.receives(peer))
        if lost <= 0 and (not sent or socket.accepted_from is None):
            continue  # a client that aborts: the server loses nothing
        name, other = name_of(trace_index, close.process), name_of(trace_index, failed.process)
        text = (
            f"{capitalized(name)} set SO_LINGER with time 0, so close({close.descriptor}) sent RST instead "
            f"of FIN: {call_name(failed)} of {other} failed with ECONNRESET"
        )
        if lost > 0:
            verb = "was" if lost == 1 else "were"
            text += f", and the last {bytes_text(lost)} of {sent:,} that were sent {verb} never read"
            text += lost_bytes(trace_index, socket, peer)
        yield Finding(
            "linger-reset",
            "SO_LINGER with time 0 resets the connection",
            f"{text}.",
            "Remove SO_LINGER: close() then sends the rest and FIN. Against TIME_WAIT of a server's port, "
            "SO_REUSEADDR is enough.",
            (option.number, close.number, failed.number),
            process=close.process,
            sockets=(socket.number, peer.number),
            in_c="setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));",
            in_python="listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # no SO_LINGER",
        )


def _option_and_close(trace_index: TraceIndex, socket: Socket) -> tuple[Call, Call] | None:
    """Return the call that set SO_LINGER with time 0 and the close that it applied to, or None."""
    option = None
    for call in trace_index.calls_by_socket[socket.number]:
        if call.failed:
            continue
        if call.name == "setsockopt" and "SO_LINGER" in call.arguments:
            value = ", ".join(call.arguments)
            if _LINGER.search(value):
                option = call
            elif _NO_LINGER.search(value):
                option = None
        elif call.name == "close" and option is not None:
            return option, call
    return None


def lost_bytes(trace_index: TraceIndex, socket: Socket, peer: Socket) -> str:
    """Return which bytes of a socket its peer never read, as in `: "HTTP/1.1 200 OK"…`; "" if not kept."""
    sent, got = stream_of(trace_index, socket, "sent"), stream_of(trace_index, peer, "received")
    rest = sent.data[got.total :]
    return f": {formatting.quoted(rest, sent.total - got.total, SHOWN)}" if rest else ""
