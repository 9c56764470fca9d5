"""Rules about the length of HTTP responses: as announced, as sent, and as read. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import RECEIVING, SENDING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.http_messages import body_lengths, rest_after_request_without_length
from bothends.trace.findings.standstill import Moment, bytes_text
from bothends.trace.findings.turns import Turn, both_ends, close_of, peer_socket, stream_of, turns
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting

SHOWN: Final = 24  # bytes of a body in a text
UNREAD_NS: Final = 3_000_000_000  # nanoseconds: a client that reads slowly on purpose reads on


def http_length_wrong(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a response with fewer bytes than Content-Length announces, or with more."""
    done = set[int]()  # processes: one finding each is enough
    for socket in trace_index.sockets("stream"):
        if socket.accepted_from is None or socket.is_wrapped:
            continue
        spoken = turns(trace_index, socket)
        for request, response in itertools.pairwise(spoken):
            if response.kind != "sent" or not response.data.startswith(b"HTTP/1."):
                continue
            lengths = body_lengths(response.data, response.total, request.data)
            finding = None
            if lengths is not None and lengths[1] > lengths[0]:
                finding = _too_long(trace_index, socket, response, *lengths)
            elif lengths is not None and lengths[1] < lengths[0] and response is spoken[-1]:
                finding = _too_short(trace_index, socket, response, *lengths)
            if finding is not None and finding.process not in done:
                done.add(response.calls[0].process)
                yield finding
                break


def http_body_without_length(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a request with a body whose length it does not announce: the body is taken for a next request."""
    for socket in trace_index.sockets("stream"):
        server = peer_socket(trace_index, socket)
        if socket.accepted_from is not None or server is None or socket.is_wrapped:
            continue
        sent, answers = stream_of(trace_index, socket, "sent"), stream_of(trace_index, server, "sent")
        body = rest_after_request_without_length(sent.data) if sent.calls else b""
        if not body or not answers.data.startswith(b"HTTP/1."):
            continue
        refused = b"HTTP/1.1 400" in answers.data or b"HTTP/1.0 400" in answers.data
        name = name_of(trace_index, sent.calls[0].process)
        yield Finding(
            "http-body-without-length",
            "An HTTP request has a body whose length is not announced",
            f"{capitalized(name)} sent a request with neither Content-Length nor Transfer-Encoding, and then "
            f"{formatting.quoted(body, len(body), SHOWN)}. Without them a request has no body, so the server "
            f"takes these bytes for the next request{', and answered 400' if refused else ''}.",
            "Announce the body: Content-Length with its number of bytes, or Transfer-Encoding: chunked "
            "(RFC 9112, section 6.3).",
            (*(call.number for call in sent.calls[:2]), answers.calls[-1].number),
            "seen" if refused else "inferred",
            "" if refused else "what follows the header is no request",
            process=sent.calls[0].process,
            sockets=(socket.number, server.number),
            in_c='dprintf(fd, "POST / HTTP/1.1\\r\\nContent-Length: %zu\\r\\n\\r\\n%s", n, body);',
            in_python='head += f"Content-Length: {len(body)}\\r\\n"',
        )


def _too_long(
    trace_index: TraceIndex, socket: Socket, response: Turn, announced: int, sent: int
) -> Finding | None:
    end = response.total - (sent - announced)
    if end < len(response.data):
        rest = f", {formatting.quoted(response.data[end:], sent - announced, SHOWN)}"
    else:
        rest = ""
    count = sent - announced
    those = "that byte" if count == 1 else f"those {count:,} bytes"
    server = name_of(trace_index, response.calls[0].process)
    return _finding(
        f"{capitalized(server)} announced a body of {bytes_text(announced)} and sent {sent:,}: the client "
        f"does not read {those}{rest} as part of the response.",
        response,
        (),
        both_ends(trace_index, socket),
    )


def _too_short(
    trace_index: TraceIndex, socket: Socket, response: Turn, announced: int, sent: int
) -> Finding | None:
    """Return the finding for a server that closed the connection before the end of the body; or None."""
    peer, close = peer_socket(trace_index, socket), close_of(trace_index, socket)
    if peer is None or close is None:
        return None
    if any(call.error in ("EPIPE", "ECONNRESET") for call in trace_index.calls_by_socket[socket.number]):
        return None  # the client has gone
    if any(
        call.name in SENDING and (call.result is None or call.size < (call.requested or 0))
        for call in response.calls
    ):
        return None  # a send was cut, and the rest may be lost
    eof = next(
        (
            call
            for call in trace_index.calls_by_socket[peer.number]
            if call.name in RECEIVING and call.result == 0 and call.requested
        ),
        None,
    )
    if eof is None or close.at > (eof.until or trace_index.end):
        return None
    server = name_of(trace_index, response.calls[0].process)
    return _finding(
        f"{capitalized(server)} announced a body of {bytes_text(announced)}, sent {sent:,} and closed the "
        f"connection: the client read EOF where it expects {bytes_text(announced - sent)} more.",
        response,
        (close, eof),
        both_ends(trace_index, socket),
    )


def _finding(text: str, response: Turn, others: tuple[Call, ...], sockets: tuple[int, ...]) -> Finding:
    return Finding(
        "http-length-wrong",
        "Content-Length is not the length of the body",
        text,
        "Make the whole body first, encode it, and announce the number of its bytes: not of its characters, "
        "and with every newline.",
        tuple(dict.fromkeys(call.number for call in (response.calls[0], response.calls[-1], *others))),
        process=response.calls[0].process,
        sockets=sockets,
        in_c='dprintf(fd, "HTTP/1.1 200 OK\\r\\nContent-Length: %zu\\r\\n\\r\\n%s", strlen(body), body);',
        in_python='body = text.encode(); head = f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(body)}\\r\\n..."',
    )


def http_body_unread(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a response of which a client has read a part, and for whose rest no thread waits any more."""
    moment: Moment | None = None
    for socket in trace_index.sockets("stream"):
        peer = trace_index.peer_of(socket.number)
        if peer is None or socket.accepted_from is not None or socket.is_wrapped:
            continue
        spoken = turns(trace_index, socket)
        if len(spoken) < 2 or spoken[-1].kind != "received":
            continue
        response, last = spoken[-1], spoken[-1].calls[-1]
        lengths = body_lengths(response.data, response.total, spoken[-2].data)
        idle = trace_index.end - (last.until or last.at)
        if lengths is None or lengths[1] >= lengths[0] or idle < UNREAD_NS:
            continue
        moment = moment or Moment(trace_index, trace_index.end)
        holders = trace_index.holders_at(socket.number, trace_index.end)
        unread = moment.sent(peer) - moment.received(socket.number)
        is_awaited = any(state.waits_for(socket.number) for state in moment.threads.values())
        if not holders or unread <= 0 or is_awaited:
            continue
        client = name_of(trace_index, min(holders))
        yield Finding(
            "http-body-unread",
            "A client does not read the rest of a response, and its connection stays busy",
            f"{capitalized(client)} read {lengths[1]:,} of the {lengths[0]:,} bytes of the response's body, "
            f"and for {formatting.duration(idle)} no thread of it has waited for the rest. The connection "
            "takes no other request until then.",
            "Read the body of each response to its end, or close the connection. In a pool of connections "
            "the next request waits for a free one.",
            (spoken[-2].calls[-1].number, last.number),
            "inferred",
            "bytes lie unread, and the client does not wait for them",
            process=min(holders),
            sockets=(socket.number, peer),
            in_c="while ((n = recv(fd, buf, sizeof buf, 0)) > 0 && (left -= n) > 0) {}",
            in_python="response.read()   # in Node.js: response.resume()",
        )
