"""Rules about TLS: at a port without it, plain text at a port with it, streams that are cut off. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from bothends.trace.capture.calls import RECEIVING, SENDING, WAITING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.hanging_reads import waits_for_client_hello
from bothends.trace.findings.standstill import STANDSTILL_NS, bytes_text, call_name
from bothends.trace.findings.turns import Turn, stream_of
from bothends.trace.model import Call, Socket
from bothends.trace.protocols.tls_records import (
    HEADER_SIZE,
    Record,
    alert_text,
    is_client_hello,
    is_record,
    last_record,
)
from bothends.trace.rendering import formatting

CRASH_NS: Final = 1_000_000_000  # nanoseconds between an EOF that is an error and the exit
PROMPT_NS: Final = 500_000_000  # nanoseconds: a TLS library rejects its first bytes at once
SHOWN: Final = 24  # bytes in a text

# What nginx, Apache and Go's net/http answer, in plain text, to an HTTP request at a port of TLS.
_HTTP_AT_TLS: Final = re.compile(
    rb"(?i)plain HTTP request was sent to HTTPS|speaking plain HTTP to an SSL|HTTP request to an HTTPS server"
)


@dataclass(frozen=True, slots=True)
class TlsExchange:
    """A connection: what the client sent, and what the server sent, seen at one end or the other.

    `client` and `server` are the sockets, None if not traced. `asked` is what the client sent, `arrived` what
    of it the server read, `answered` what the server sent; `got` what of it the client read.
    """

    client: Socket | None
    server: Socket | None
    asked: Turn
    arrived: Turn
    answered: Turn
    got: Turn

    @property
    def sockets(self) -> tuple[int, ...]:
        return tuple(each.number for each in (self.client, self.server) if each is not None)


@lru_cache(maxsize=1)
def exchanges(trace_index: TraceIndex) -> tuple[TlsExchange, ...]:
    """Return every connection once, by its client if that is traced."""
    found = []
    for socket in trace_index.sockets("stream"):
        if socket.is_listener or socket.is_wrapped or not trace_index.calls_by_socket[socket.number]:
            continue
        number = trace_index.peer_of(socket.number)
        peer = trace_index.trace.sockets.get(number) if number is not None else None
        is_server = socket.accepted_from is not None
        if is_server and peer is not None:
            continue  # the client's socket stands for both
        client, server = (peer, socket) if is_server else (socket, peer)
        first, second = stream_of(trace_index, socket, "sent"), stream_of(trace_index, socket, "received")
        if is_server:
            found.append(TlsExchange(client, server, second, second, first, first))
        elif peer is None:
            found.append(TlsExchange(client, server, first, first, second, second))
        else:
            arrived, sent = stream_of(trace_index, peer, "received"), stream_of(trace_index, peer, "sent")
            found.append(TlsExchange(client, server, first, arrived, sent if sent.total else second, second))
    return tuple(found)


def tls_to_plain(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a client that begins a TLS handshake with a server that does not speak TLS."""
    for each in exchanges(trace_index):
        if not is_client_hello(each.asked.data):
            continue
        hello = each.asked.calls[0]
        client = name_of(trace_index, hello.process) if each.client is not None else "the client"
        answer = each.answered
        is_echo = is_client_hello(answer.data)
        if is_echo or (answer.total and not is_record(answer.data)):
            text, certainty, basis = (
                "The server sent a ClientHello back: it echoes the bytes."
                if is_echo
                else f"The server answered {_quoted(answer)}, which is not TLS.",
                "seen",
                "",
            )
            last: Call | None = answer.calls[0]
        else:
            silent = _silence(trace_index, each, hello)
            if silent is None:
                continue
            outcome, last = silent
            text, certainty, basis = (
                f"The server read it and sent nothing: probably it takes the bytes for text. {outcome}",
                "inferred",
                "a TLS server answers a ClientHello at once, with a ServerHello or an alert",
            )
        if _speaks_plain_later(trace_index, each, hello):
            continue
        yield Finding(
            "tls-to-plain",
            "The client speaks TLS, and the server does not",
            f"{capitalized(client)} sent a TLS ClientHello of {bytes_text(each.asked.calls[0].size)} "
            f"(16 03 {hello.data[2]:02x} ...). {text}",
            "Connect without TLS (http:// instead of https://), use the server's TLS port, or wrap the "
            "server's connections in TLS.",
            tuple(dict.fromkeys(call.number for call in (hello, *each.arrived.calls[:1], last) if call)),
            "seen" if certainty == "seen" else "inferred",
            basis,
            process=hello.process if each.client is not None else None,
            sockets=each.sockets,
            in_c="SSL *tls = SSL_new(context); SSL_set_fd(tls, c); SSL_accept(tls);  /* in the server */",
            in_python="c = context.wrap_socket(c, server_side=True)  # in the server",
        )


def _quoted(turn: Turn) -> str:
    return formatting.quoted(turn.data, turn.total, SHOWN)


def _silence(trace_index: TraceIndex, each: TlsExchange, hello: Call) -> tuple[str, Call] | None:
    """Return what became of a ClientHello that a server read and did not answer, or None."""
    if each.server is None or each.answered.total or each.client is None:
        return None
    if (
        each.arrived.total < min(each.asked.total, hello.size)
        or each.arrived.calls[0].requested == HEADER_SIZE
    ):
        return None  # it has not read all of it yet, or reads it as a TLS library does: the header first
    read = each.arrived.calls[-1]
    if any(
        call.name in SENDING and call.size and call.number > read.number and is_client_hello(call.data)
        for call in trace_index.calls_by_process[read.process]
    ):
        return None  # a proxy that passes TLS on
    client, server = name_of(trace_index, hello.process), name_of(trace_index, read.process)
    for call in trace_index.calls_by_socket[each.client.number]:
        if call.number <= hello.number or call.name not in RECEIVING:
            continue
        if call.result == 0 or call.error == "ECONNRESET":
            how = "EOF" if call.result == 0 else "ECONNRESET"
            return f"Then it closed the connection: {call_name(call)} of {client} returned {how}.", call
        until = call.until or trace_index.end
        if until - call.at >= STANDSTILL_NS and (call.until is None or call.error == "EAGAIN"):
            waited = formatting.duration(until - call.at)
            return f"{capitalized(client)} waited {waited} in {call_name(call)} for the handshake.", call
    waits = [
        call
        for call in trace_index.calls_by_process[hello.process]
        if call.name in WAITING and each.client.number in call.sockets and call.number > hello.number
    ]
    long = [call for call in waits if (call.until or trace_index.end) - call.at >= STANDSTILL_NS]
    if not long:
        return None
    waited = formatting.duration((long[0].until or trace_index.end) - long[0].at)
    return f"{capitalized(client)} waited {waited} in {call_name(long[0])}, and {server} for more.", long[0]


def _speaks_plain_later(trace_index: TraceIndex, each: TlsExchange, hello: Call) -> bool:
    """Return whether the client tried again without TLS and got an answer: it only tried TLS first."""
    if each.client is None:
        return False
    return any(
        other.client is not None
        and other.client.peer == each.client.peer
        and other.got.total
        and other.asked.calls
        and other.asked.calls[0].process == hello.process
        and other.asked.calls[0].number > hello.number
        and not is_client_hello(other.asked.data)
        for other in exchanges(trace_index)
    )


def plain_to_tls(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a client that sends plain text, or nothing, to a server that expects a TLS handshake."""
    yield from waits_for_client_hello(trace_index)
    for each in exchanges(trace_index):
        if not each.asked.total or is_record(each.asked.data):
            continue
        first = each.asked.calls[0]
        shown = _rejection(trace_index, each)
        if shown is None:
            continue
        text, basis, last = shown
        client = name_of(trace_index, first.process) if each.client is not None else "the client"
        yield Finding(
            "plain-to-tls",
            "The client sends plain text to a port of TLS",
            f"{capitalized(client)} sent {_quoted(each.asked)} without a TLS handshake. {text}",
            "Begin with a TLS handshake (https:// instead of http://), or use the server's port without TLS.",
            tuple(dict.fromkeys(call.number for call in (first, *each.arrived.calls[:1], last))),
            "inferred" if basis else "seen",
            basis,
            process=first.process if each.client is not None else None,
            sockets=each.sockets,
            in_c="SSL *tls = SSL_new(context); SSL_set_fd(tls, fd); SSL_connect(tls);",
            in_python="s = ssl.create_default_context().wrap_socket(s, server_hostname=host)",
        )


def _rejection(trace_index: TraceIndex, each: TlsExchange) -> tuple[str, str, Call] | None:
    """Return how a TLS server rejected what it got, what that is inferred from, and the call; or None."""
    answer = each.answered
    if answer.total:
        alert = alert_text(answer.data)
        if alert and answer.calls[0].at >= each.asked.calls[0].at:
            return f"The server answered with a TLS alert, {alert}.", "", answer.calls[0]
        said = _HTTP_AT_TLS.search(answer.data)
        if said is not None:
            quoted = formatting.quoted(said[0], len(said[0]), 60)
            return f"The server answered that it expects TLS: {quoted}.", "", answer.calls[0]
        return None
    if each.server is None or not each.arrived.calls or each.client is None:
        return None
    read, sockets = each.arrived.calls[0], trace_index.calls_by_socket[each.server.number]
    command = trace_index.process(read.process).command
    is_library = re.search("python|ssl|tls|https", command) is not None
    reads_header = read.name == "read" and read.requested == HEADER_SIZE and is_library
    is_node = re.search(r"(?:^|[\s\"\[/])node(?:js)?[\s\",\]]", command) is not None
    name = name_of(trace_index, read.process)
    closed = next((call for call in sockets if call.name == "close" and call.number > read.number), None)
    prompt = closed is not None and closed.at - (read.until or read.at) < PROMPT_NS
    ended = trace_index.ended_at(read.process)
    if any(call.name in RECEIVING and call.result == 0 and call.requested for call in sockets):
        return None  # the client had ended its direction
    if reads_header and read.size < HEADER_SIZE and closed is None:
        rest = [call for call in sockets if call.name == "read" and call.number > read.number]
        if rest and rest[0].until is None and trace_index.end - rest[0].at >= STANDSTILL_NS:
            return (
                f"{capitalized(name)} waits for the other {bytes_text(HEADER_SIZE - read.size)} of a header.",
                f"{name} reads 5 bytes, the header of a TLS record",
                rest[0],
            )
    if not prompt or closed is None or not _client_got_nothing(trace_index, each.client):
        return None
    if reads_header and read.size == HEADER_SIZE:
        return (
            f"{capitalized(name)} read 5 bytes, the header of a TLS record, and closed the connection.",
            f"{name} reads as a TLS library does",
            closed,
        )
    if is_node and ended is None and not any(call.name == "shutdown" for call in sockets):
        return (
            f"{capitalized(name)} read it and closed the connection at once, without an answer.",
            "Node.js closes so when the first bytes are no TLS record",
            closed,
        )
    return None


def _client_got_nothing(trace_index: TraceIndex, client: Socket) -> bool:
    """Return whether a client waited for an answer, and the connection ended instead."""
    return any(
        call.name in RECEIVING and (call.result == 0 or call.error == "ECONNRESET")
        for call in trace_index.calls_by_socket[client.number]
    )


def tls_cut_off(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a TLS stream that ended within a record, or without close_notify where the peer needs it."""
    for each in exchanges(trace_index):
        if not is_client_hello(each.asked.data) or not is_record(each.answered.data):
            continue
        for socket, sent, got in (
            (each.client, each.answered, each.got),
            (each.server, each.asked, each.arrived),
        ):
            finding = _cut_off(trace_index, each, socket, sent, got) if socket is not None else None
            if finding is not None:
                yield finding
                break


def _cut_off(
    trace_index: TraceIndex, each: TlsExchange, reader: Socket, sent: Turn, got: Turn
) -> Finding | None:
    """Return the finding for an end that read EOF where a TLS stream was not over, or None."""
    eof = next(
        (
            call
            for call in trace_index.calls_by_socket[reader.number]
            if call.name in RECEIVING and call.result == 0 and call.requested
        ),
        None,
    )
    record = last_record(got.calls)
    if eof is None or record is None or record.may_be_alert:
        return None
    crash = _crash_after(trace_index, eof)
    if crash is None:
        return None
    sender = sent.calls[-1].process if sent is not got else None
    writer = name_of(trace_index, sender) if sender is not None else "the peer"
    name = name_of(trace_index, eof.process)
    return Finding(
        "tls-cut-off",
        "A TLS stream ended without close_notify",
        f"{capitalized(writer)} closed the connection {_where(record)}. {capitalized(name)} read EOF and "
        f"exited with status {trace_index.process(eof.process).status} "
        f"{formatting.duration(max(0, crash[1] - (eof.until or eof.at)))} later.",
        "End the TLS stream before you close the socket (unwrap(), SSL_shutdown()), so that the peer can "
        "tell the end from a cut. Without it, rely on a length in the data.",
        (sent.calls[-1].number, eof.number, crash[0]),
        "seen" if record.missing else "inferred",
        "" if record.missing else f"no alert ended the stream, and {name} exited with an error at its end",
        process=sender if sender is not None else eof.process,
        sockets=each.sockets,
        in_c="if (SSL_shutdown(tls) == 0) SSL_shutdown(tls); close(fd);",
        in_python="tls.unwrap().close()  # instead of tls.close()",
    )


def _where(record: Record) -> str:
    if record.missing:
        return f"within a TLS record: {bytes_text(record.missing)} of it are missing"
    return "after a whole TLS record, without close_notify"


def _crash_after(trace_index: TraceIndex, eof: Call) -> tuple[int, int] | None:
    """Return the event and the time of an exit with an error soon after an EOF, or None."""
    status = trace_index.process(eof.process).status
    if status is None or status <= 0:
        return None
    for event in trace_index.process_events:
        if event.process == eof.process and event.kind == "ended":
            soon = 0 <= event.at - (eof.until or eof.at) < CRASH_NS
            return (event.number, event.at) if soon else None
    return None
