"""Rules about hangs in which both ends wait to read, and everything that was sent has been read. Pure.

One end sent last, and waits for the answer. The other one has read all of it, and waits for more. What it
waits for is inferred from the bytes, and from the sizes of its reads:

    GET / HTTP/1.1\\r\\n        no blank line            http-incomplete
    POST / HTTP/1.1 and body  asks for more            http-read-to-eof
    5 of 100 bytes            asks for the other 95    read-too-long
    hello                     reads by line            no-newline
    hello                     reads otherwise          no-half-close
    2 * 1024 bytes            each read is full        full-read-not-last
    hello\\n                   reads by line            unflushed: the answer is in a buffer
    hello\\n                   sends at the end         unflushed, if earlier requests were answered
    hello\\n                   sends nothing            request-ignored, if earlier requests were answered
    nothing at all                                     unflushed: the request is in a buffer
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from bothends.trace.capture.calls import RECEIVING, SENDING
from bothends.trace.findings.after_answers import compressed_unflushed, holds_lines, last_line_unended
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import INTERPRETERS, capitalized, name_of, runs, runs_node
from bothends.trace.findings.framing import FRAMINGS_WITH_TYPE, binary_lengths
from bothends.trace.findings.http_messages import (
    body_of_whole_request,
    ends_with_last_chunk,
    is_whole_request,
    is_whole_response,
    missing_of_request,
)
from bothends.trace.findings.java_ciphers import last_block_kept
from bothends.trace.findings.java_objects import awaits_stream_header, stream_header_awaited
from bothends.trace.findings.pieces import json_in_pieces
from bothends.trace.findings.reading import (
    buffered_read,
    fixed_read,
    has_read_last,
    is_alone,
    others_may_act,
    reads_lines,
    size_of_reads,
    watches_only,
)
from bothends.trace.findings.standstill import (
    STANDSTILL_NS,
    Standstill,
    ThreadState,
    age,
    bytes_text,
    call_name,
    evidence,
    standstills,
)
from bothends.trace.findings.turns import Turn, turns
from bothends.trace.findings.waiting_loops import (
    ANSWER_EVERY_REQUEST,
    answered_elsewhere,
    may_await_wakeup,
    unanswered_here,
)
from bothends.trace.model import Call, Socket
from bothends.trace.protocols.tls_records import HEADER_SIZE
from bothends.trace.rendering import formatting

_SMALLEST_BUFFER: Final = 16  # bytes: smaller reads are of headers, or of characters
UNANSWERED_NS: Final = 3_000_000_000  # nanoseconds
_FLUSH_IN_C: Final = "fflush(out);  /* or setvbuf(out, NULL, _IOLBF, 0) */"
_FLUSH_IN_PYTHON: Final = "stream.flush()  # in Java: new PrintWriter(out, true), or out.flush()"
_UNBUFFERED_OUTPUT: Final = frozenset({65536, 262144})  # Node.js and asyncio read so, and send at once


def http_incomplete(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find an HTTP request without its blank line or its whole body."""
    return _of_kind(trace_index, "http-incomplete")


def http_read_to_eof(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a server that has a whole HTTP request with its body, and waits for more."""
    return _of_kind(trace_index, "http-read-to-eof")


def request_ignored(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a request without an answer, on a connection on which earlier ones were answered."""
    return _of_kind(trace_index, "request-ignored")


def http_unanswered(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find an HTTP request that a server has read for long, at the end of the trace, without a response."""
    for each in standstills(trace_index):
        if (
            each.peer is None
            or each.unread
            or each.unread_here
            or each.moment.now - each.since < UNANSWERED_NS
        ):
            continue
        spoken = turns(trace_index, each.socket)
        if each.moment.now < trace_index.end or not spoken or spoken[-1].kind != "sent":
            continue
        request, states = spoken[-1], each.peers
        if not is_whole_request(request.data, request.total) or not states:
            continue
        if any(state.activity not in ("events", "lock", "accept") for state in states):
            continue
        client, server = name_of(trace_index, each.waiter.process), name_of(trace_index, states[0].process)
        line = request.data.partition(b"\r\n")[0]
        yield Finding(
            "http-unanswered",
            "An HTTP request has no response",
            f"{capitalized(server)} has read the request {formatting.quoted(line, len(line), 40)} and sent "
            f"no byte of a response for {formatting.duration(each.moment.now - each.since)}. "
            f"{capitalized(client)} waits in {call_name(each.waiter)}.",
            "End every branch of a handler with a response, also after an error. (A response that waits for "
            "an event, as in long polling, looks the same.)",
            evidence(request.calls[-1], states[0], each.waiter),
            "inferred",
            f"the request is complete, and no thread of {server} works on it visibly",
            process=states[0].process,
            sockets=(each.socket.number, each.peer.number),
            in_c='dprintf(c, "HTTP/1.1 500 Internal Server Error\\r\\nContent-Length: 0\\r\\n\\r\\n");',
            in_python="self.send_response(204); self.end_headers()   # in Node.js: response.end()",
        )


def read_too_long(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a read of a fixed number of bytes, of which the peer sent fewer."""
    return _of_kind(trace_index, "read-too-long")


def full_read_not_last(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a message that fills the reader's buffer exactly, and a reader that waits for the rest of it."""
    return _of_kind(trace_index, "full-read-not-last")


def no_newline(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a line without its end, which the peer waits for."""
    return _of_kind(trace_index, "no-newline")


def unflushed(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a request or an answer that was probably written to a buffer and never flushed."""
    return _of_kind(trace_index, "unflushed")


def no_half_close(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a server that probably reads to EOF, and a client that waits for the answer without EOF."""
    return _of_kind(trace_index, "no-half-close")


def _of_kind(trace_index: TraceIndex, rule: str) -> Iterator[Finding]:
    return (each for each in _both_read(trace_index) if each.rule == rule)


@lru_cache(maxsize=1)
def _both_read(trace_index: TraceIndex) -> tuple[Finding, ...]:
    found, done = list[Finding](), set[int]()
    for each in standstills(trace_index):
        if each.peer is None or each.socket.number in done:
            continue
        waits_for_all = _waits_for_all(trace_index, each)
        if waits_for_all is not None:
            found.append(waits_for_all)
            done |= {each.socket.number, each.peer.number}
            continue
        reader = next((state for state in each.peers if state.waits_for(each.peer.number)), None)
        if reader is None or each.unread or each.unread_here or not each.waiter.waits_for(each.socket.number):
            continue
        is_server = each.socket.accepted_from is not None
        if (
            is_server
            and each.moment.now - reader.since < STANDSTILL_NS // 2
            and each.moment.now < trace_index.end
        ):
            continue  # the client has just received something
        finding = _classify(trace_index, each, each.peer, reader)
        if finding is not None:
            found.append(finding)
            done |= {each.socket.number, each.peer.number}
    return tuple(found)


def _waits_for_all(trace_index: TraceIndex, each: Standstill) -> Finding | None:
    """Return the finding about a read with MSG_WAITALL, or None: the bytes that came are not read yet."""
    call = each.waiter.call
    if call is None or each.peer is None or "MSG_WAITALL" not in call.flags or call.name not in RECEIVING:
        return None
    wanted = call.requested or 0
    if not each.unread_here < wanted:
        return None
    senders = each.moment.states_at(each.peer.number)
    sender = next((state for state in senders if state.waits_for(each.peer.number)), None)
    sent = each.sends(each.peer)
    if sender is None:
        return None
    other, name = name_of(trace_index, sender.process), name_of(trace_index, each.waiter.process)
    return _too_long(
        each, each.waiter, sender, sent[-1:],
        f"{capitalized(name)} waits in {call_name(each.waiter)} until all {bytes_text(wanted)} are there, "
        f"and {other} has sent only {each.unread_here:,}. {capitalized(other)} waits in {call_name(sender)} "
        f"for the answer, for {age(each, sender)}.",
    )  # fmt: skip


def _too_long(
    each: Standstill, reader: ThreadState, sender: ThreadState, sends: list[Call], text: str, basis: str = ""
) -> Finding:
    assert each.peer is not None
    return Finding(
        "read-too-long",
        "A read waits for more bytes than the peer sends",
        text,
        "Read the length that the peer announces, or up to a delimiter; "
        + ("read1() of a stream and recv() return " if basis else "without MSG_WAITALL recv() returns ")
        + "what is there. Or send all the bytes that the reader expects.",
        evidence(*sends, reader, sender),
        "inferred" if basis else "seen",
        basis,
        process=reader.process,
        sockets=(each.socket.number, each.peer.number),
        in_c="n = recv(fd, buf, sizeof buf, 0);  /* returns what has arrived */",
        in_python="line = stream.readline()  # or stream.read1(1024)"
        if basis
        else "data = s.recv(4096)  # or first read the length: struct.unpack('!I', header)",
    )


def _hint_of_length(data: bytes, size: int, wanted: int) -> str:
    """Say that a binary length in front of the message announces what the reader waits for, if it does."""
    for width in (4, 2, 8):
        prefix = data[:width]
        values = binary_lengths(prefix)
        if size > width and {wanted, wanted - width} & {*values}:
            value = wanted if wanted in values else wanted - width
            if _has_length_later(data, wanted):
                return ""  # either may be the length
            return f" The length in front of it, {prefix.hex(' ')}, announces {value:,}."
    return ""


def _has_length_later(data: bytes, wanted: int) -> bool:
    """Return whether a length after a type or a version, too, announces what the reader waits for."""
    return any(
        int.from_bytes(each.length(data), each.order) == wanted - each.header for each in FRAMINGS_WITH_TYPE
    )


def _classify(trace_index: TraceIndex, each: Standstill, peer: Socket, reader: ThreadState) -> Finding | None:
    """Return the finding for a thread that waits for an answer, and a peer that waits for more; or None."""
    spoken = turns(trace_index, each.socket)
    spoken = [turn for turn in spoken if (turn.calls[0].until or 0) <= each.moment.now]
    wait, read = each.waiter, reader
    if not spoken:
        is_client = each.socket.accepted_from is None
        return _nothing_sent(trace_index, each, peer, read) if is_client else None
    is_server = each.socket.accepted_from is not None
    unflushed = compressed_unflushed(each, peer, spoken) if is_server and not wait.has_limit else None
    if unflushed is not None:
        return unflushed
    # What the other end sent before it read the request may arrive after it: a rest of an earlier answer.
    has_crossed = not is_server and has_read_last(trace_index, each, peer, spoken)
    if has_crossed:
        spoken = spoken[:-1]
    if spoken[-1].kind != "sent" or wait.has_limit or others_may_act(trace_index, each):
        return None
    data, size = spoken[-1].data, spoken[-1].total
    if is_server and not (
        watches_only(trace_index, wait, each.socket)
        and watches_only(trace_index, read, peer)
        and is_alone(trace_index, each)
        and not is_whole_response(data, size)
    ):
        return None  # it may send to this client what others cause, or the client may keep it for later
    name, other = name_of(trace_index, wait.process), name_of(trace_index, read.process)
    state = (
        f"{capitalized(name)} sent {formatting.quoted(data, size, 24)} and waits in {call_name(wait)} "
        f"for the {'next request' if is_server else 'answer'}, for {age(each, wait)}. {capitalized(other)} "
        f"has read all {bytes_text(size)}, and waits in {call_name(read)} for more"
    )
    sockets = (each.socket.number, peer.number)
    events = evidence(spoken[-1].calls[-1], wait, read)
    missing = missing_of_request(data, size)
    if missing:
        return Finding(
            "http-incomplete",
            "An HTTP request is not complete",
            f"{state}: the request lacks {missing}.",
            "End the header with an empty line (\\r\\n\\r\\n), and send as many bytes of body as "
            "Content-Length says.",
            events,
            process=wait.process,
            sockets=sockets,
            in_c='send(fd, "GET / HTTP/1.1\\r\\nHost: example\\r\\n\\r\\n", 37, 0);',
            in_python='s.sendall(b"GET / HTTP/1.1\\r\\nHost: example\\r\\n\\r\\n")',
        )
    body = 0 if is_server else body_of_whole_request(data, size)
    is_chunked = not is_server and ends_with_last_chunk(data, size, spoken[-1].calls[-1].data)
    if body or is_chunked:
        which = (
            "and ends with the last chunk, 0\\r\\n\\r\\n"
            if is_chunked
            else f"with the {bytes_text(body)} of body that Content-Length announces"
        )
        return Finding(
            "http-read-to-eof",
            "The server reads an HTTP request beyond its body",
            f"{state}: the request is complete, {which}, so probably {other} "
            + ("reads the body in blocks, and not by its chunks, or " if is_chunked else "reads ")
            + "up to EOF, which does not come on a connection that stays open.",
            "Read the chunks, each with its size in front, until the one of size 0 (RFC 9112, section 7.1)."
            if is_chunked
            else "Read exactly as many bytes of body as Content-Length says (RFC 9112, section 6).",
            events,
            "inferred",
            "the request is complete, and the reader goes on",
            process=read.process,
            sockets=sockets,
            in_c="while ((size = read_chunk_size(fd)) > 0) read_exactly(fd, chunk, size + 2);  /* and CRLF */"
            if is_chunked
            else "while (have < content_length && (n = recv(fd, body + have, content_length - have, 0)) > 0)",
            in_python="while size := int(f.readline().split(b';')[0], 16): body += f.read(size); f.readline()"
            if is_chunked
            else 'body = self.rfile.read(int(self.headers["Content-Length"]))',
        )
    wanted = fixed_read(each, peer, read, size)
    if wanted:
        return _too_long(
            each, read, wait, spoken[-1].calls[-1:],
            f"{state}: it reads {bytes_text(wanted)} in all, and {size:,} came."
            + _hint_of_length(data, size, wanted),
        )  # fmt: skip
    if has_crossed:
        return None  # the ends do not take turns, so the rest would be a guess
    from_buffer = buffered_read(trace_index, each, peer, read, size)
    if from_buffer:
        return _too_long(
            each, read, wait, spoken[-1].calls[-1:],
            f"{state}: it fills a buffer of {bytes_text(from_buffer)} and goes on, so probably it asks its "
            f"stream for more than the {size:,} that came, as read(n) of a buffered stream does.",
            "read(n) of a buffered stream asks for the rest of its buffer only if it still needs more",
        )  # fmt: skip
    full = 0 if is_server else _full_reads(each, peer, read, size)
    if full:
        return Finding(
            "full-read-not-last",
            "A message fills the buffer of the reader exactly, and the reader waits for more",
            f"{state}. {'The read' if full == 1 else f'Each of the {full} reads'} before filled the buffer "
            f"of {bytes_text(size // full)}: probably {other} takes a read that returns less than it asked "
            "for as the end of a message, and here none did.",
            "A short read is no end of a message, and a full one no sign of more: TCP does not preserve "
            "message boundaries. Send the length first, or a delimiter, and read up to it.",
            events,
            "inferred",
            "every read of this message was full",
            process=read.process,
            sockets=sockets,
            in_c="while (have < length && (n = recv(fd, buf + have, length - have, 0)) > 0) have += n;",
            in_python="(length,) = struct.unpack('!I', read_exactly(s, 4)); data = read_exactly(s, length)",
        )
    if _lacks_carriage_return(spoken):
        return Finding(
            "no-newline",
            "The last line ends with \\n alone, and each end waits for the other",
            f"{state}. Every line that {name} sent before ends with \\r\\n, and the last one with \\n: "
            f"probably {other} reads up to \\r\\n.",
            "End every line of this protocol with \\r\\n, the lines of a text that is sent in it too.",
            events,
            "inferred",
            "the lines before end with \\r\\n",
            process=wait.process,
            sockets=sockets,
            in_c='send(fd, "\\r\\n.\\r\\n", 5, 0);',
            in_python='s.sendall(text.replace("\\n", "\\r\\n").encode() + b"\\r\\n.\\r\\n")',
        )
    if read.has_limit or any(turn.kind == "received" and len(spoken) > 8 for turn in spoken):
        return None
    if not is_server and _answered_before(spoken):
        return _not_answered(trace_index, each, peer, read, state, events)
    if not is_server and read.activity == "events" and not missing:
        elsewhere = answered_elsewhere(trace_index, each, peer, spoken[-1])
        if elsewhere:
            return unanswered_here(trace_index, each, peer, read, elsewhere, state, events)
    in_pieces = None if is_server else json_in_pieces(trace_index, each, peer, read, state, events)
    if in_pieces is not None:
        return in_pieces
    by_line = reads_lines(trace_index, each, peer, read)
    is_line = data[:size].endswith((b"\n", b"\0"))
    is_text = bool(data) and all(32 <= byte < 127 or byte in b"\r\n\t" or byte > 127 for byte in data)
    if by_line and is_text and not is_line:
        by_bytes = size_of_reads(each, peer, read) == 1  # no line reader's buffer: any byte may end a message
        if by_bytes:
            what, mark = "message", "a newline, or to another byte that ends a message, such as NUL"
            basis = "the bytes are text without newline, and they are read one by one"
            remedy = "End each message with the byte that the peer reads up to, such as a newline or NUL. "
        else:
            what, mark = "line", "a newline"
            basis = (
                "the bytes are text without a newline, and the read has the size of a line reader's buffer"
            )
            remedy = "End each message with the newline that the peer reads up to. "
        return Finding(
            "no-newline",
            f"The end of the {what} is missing, and each end waits for the other",
            f"{state}: probably it reads up to {mark}, and none was sent."
            + _hint_of_size(trace_index, wait, size),
            remedy + "If the peer reads to EOF, call shutdown(SHUT_WR) after the last byte.",
            events,
            "inferred",
            basis,
            process=wait.process,
            sockets=sockets,
            in_c='send(fd, "hello", 6, 0);  /* with its NUL */'
            if by_bytes
            else 'send(fd, "hello\\n", 6, 0);',
            in_python='s.sendall(text.encode() + b"\\n")',
        )
    if is_server:
        unended = last_line_unended(trace_index, each, peer, spoken)
        more = holds_lines(each, peer, data)
        has_stopped = _has_stopped_listening(trace_index, each)
        return unended or _end_not_sent(
            each, peer, state, events, has_more_lines=more, has_stopped=has_stopped and not more
        )
    in_cipher = last_block_kept(trace_index, each, peer, read, data, size, state, events)
    if in_cipher is not None:
        return in_cipher
    size_of_read = size_of_reads(each, peer, read)
    if by_line and is_line and size_of_read not in _UNBUFFERED_OUTPUT | {1}:
        lines = _lines_of_one_read(each, peer, data)
        return Finding(
            "unflushed",
            "The answer is in a buffer that was never flushed, or a line in that of a reader before"
            if lines
            else "The answer is probably in a buffer that was never flushed",
            f"{state}. The line is complete, so probably {other} wrote its answer to a buffered stream: "
            f"{_nothing_from(each, peer, other)}."
            + (
                f" Or it makes a new buffered reader for each line: the first one took all {lines} lines "
                "that had come, and the next one waits for a line that was read already."
                if lines
                else ""
            ),
            "Flush after each message, or use a line-buffered stream. "
            + "Make one buffered reader for each connection, and keep it. " * bool(lines)
            + "If the server reads to EOF, the client must call shutdown(SHUT_WR).",
            events,
            "inferred",
            "a whole line was read through a buffer, and nothing was sent",
            process=read.process,
            sockets=sockets,
            in_c=_FLUSH_IN_C,
            in_python=_FLUSH_IN_PYTHON,
        )
    may_sleep = may_await_wakeup(trace_index, read)
    return Finding(
        "no-half-close",
        "Each end waits for the other: no EOF was sent"
        + ", or no thread woke the event loop for the answer" * may_sleep,
        f"{state}: probably it reads up to EOF, and {name} did not end its direction with shutdown(SHUT_WR)"
        + ("." if is_text else "; or it expects a longer message.")
        + " Or another thread has made the answer: an event loop sends it only when it is woken." * may_sleep,
        "Call shutdown(SHUT_WR) after the last byte of the request, or let the reader stop at a length"
        + (
            "."
            if not is_text
            else " or a newline."
            if is_line
            else " or a newline, which this request lacks."
        )
        + " After another thread has queued an answer, wake the loop: in Java with selector.wakeup(), in "
        "asyncio with call_soon_threadsafe(), in C with a write to an eventfd." * may_sleep,
        events,
        "inferred",
        "everything was read, and the reader goes on",
        process=wait.process,
        sockets=sockets,
        in_c="shutdown(fd, SHUT_WR);  /* after the last send() */",
        in_python="s.shutdown(socket.SHUT_WR)  # after sendall()",
    )


def _lines_of_one_read(each: Standstill, peer: Socket, data: bytes) -> int:
    """Return how many lines the last read took at once, if they are the whole request; otherwise 0."""
    reads = each.receives(peer)
    lines = data.count(b"\n")
    return lines if lines > 1 and bool(reads) and reads[-1].size == len(data) else 0


def _full_reads(each: Standstill, peer: Socket, reader: ThreadState, size: int) -> int:
    """Return in how many reads the last message came, if each was full, like the one that waits; else 0."""
    call, left, count = reader.call, size, 0
    if call is None or call.name not in RECEIVING or (call.requested or 0) < _SMALLEST_BUFFER:
        return 0
    for read in reversed(each.receives(peer)):
        if read.thread != reader.thread or not read.size == read.requested == call.requested:
            return 0
        left, count = left - read.size, count + 1
        if left <= 0:
            break
    return count if not left else 0


def _not_answered(
    trace_index: TraceIndex,
    each: Standstill,
    peer: Socket,
    read: ThreadState,
    state: str,
    events: tuple[int, ...],
) -> Finding:
    """Return the finding for a request without an answer, at a server that answered others like it."""
    other, client = name_of(trace_index, read.process), name_of(trace_index, each.waiter.process)
    late = _sent_without_input(trace_index, each, peer, read)
    if late is not None:
        return Finding(
            "unflushed",
            "The answer was in a buffer, and left it only when the connection ended",
            f"{state}. It answered the requests before this one. When {client} had given up, {other} sent "
            f"{formatting.quoted(late.data, late.size or late.requested or 0, 24)} without having read "
            "another request: so probably the answer had been written to a buffered stream, which was "
            "flushed only when it was closed.",
            "Flush after each answer, on every path, or use a line-buffered stream.",
            (*events, late.number),
            "inferred",
            "the answer was sent at the end of the connection, and nothing was read in between",
            process=read.process,
            sockets=(each.socket.number, peer.number),
            in_c=_FLUSH_IN_C,
            in_python=_FLUSH_IN_PYTHON,
        )
    pieces = _pieces(trace_index, peer)
    if pieces:
        return Finding(
            "request-ignored",
            "A request came in pieces, and the server has not answered it",
            f"{state}. It answered the requests before this one, and sent no answer to it. It came in "
            f"{pieces} reads, and each request before in one: probably {other} takes every read for a whole "
            "message, and none of the pieces is one.",
            "Collect what is read until the message is complete, by its length or its end: TCP does not "
            "preserve message boundaries.",
            events,
            "inferred",
            "earlier requests, each read at once, were answered",
            process=read.process,
            sockets=(each.socket.number, peer.number),
            in_c="have += n; while ((end = message_end(buf, have))) { handle(buf, end); have -= end; }",
            in_python="buffer += data   # and handle what is complete; in Node.js: rest = rest + chunk",
        )
    is_buffered = _may_buffer_output(trace_index, each, peer, read)
    return Finding(
        "request-ignored",
        "The server has not answered a request, and waits for the next one",
        f"{state}. It answered the requests before this one, and sent no answer to it"
        + (
            ": either it did not make one, or the answer is in a buffer that was not flushed."
            if is_buffered
            else "."
        ),
        ANSWER_EVERY_REQUEST
        + " If the answer is written to a buffered stream, flush after it." * is_buffered
        + " A paused stream of Node.js reads into its own buffer: resume() it."
        * runs_node(trace_index, read.process),
        events,
        "inferred",
        "earlier requests on this connection were answered",
        process=read.process,
        sockets=(each.socket.number, peer.number),
        in_c='else send(c, "ERR unknown command\\n", 20, 0);',
        in_python='else: connection.sendall(b"ERR unknown command\\n")',
    )


def _sent_without_input(
    trace_index: TraceIndex, each: Standstill, peer: Socket, read: ThreadState
) -> Call | None:
    """Return what the server sent after the wait, if it had received nothing more than EOF or an error."""
    for call in trace_index.calls_by_socket[peer.number]:
        if call.process != read.process or (call.until or trace_index.end) <= each.moment.now:
            continue
        if call.name in RECEIVING and call.size:
            return None
        if call.name in SENDING and call.requested:
            return call
    return None


def _may_buffer_output(trace_index: TraceIndex, each: Standstill, peer: Socket, read: ThreadState) -> bool:
    """Return whether answers may go through a stream that keeps them until it is flushed.

    Node.js and asyncio send at once, and so does send() of a compiled program: stdio calls write().
    """
    if size_of_reads(each, peer, read) in _UNBUFFERED_OUTPUT:
        return False
    is_compiled = not runs(trace_index, read.process, *INTERPRETERS)
    return not is_compiled or all(call.name in ("write", "writev") for call in each.sends(peer))


def _lacks_carriage_return(spoken: list[Turn]) -> bool:
    """Return whether the last line ends in \\n alone, and all that were answered before in \\r\\n."""
    whole = [turn for turn in spoken if turn.kind == "sent" and len(turn.data) == turn.total]
    if not whole or whole[-1] is not spoken[-1]:
        return False
    *earlier, last = whole
    is_bare = last.data.endswith(b"\n") and not last.data.endswith(b"\r\n")
    return is_bare and bool(earlier) and all(turn.data.endswith(b"\r\n") for turn in earlier)


def _hint_of_size(trace_index: TraceIndex, sender: ThreadState, size: int) -> str:
    is_compiled = not runs(trace_index, sender.process, *INTERPRETERS)
    if size not in (4, 8) or not is_compiled:
        return ""
    return f" {size} bytes are the size of a pointer: in C, sizeof of a char * is not the length of its text."


def _answered_before(spoken: list[Turn]) -> bool:
    """Return whether a request like the last one was answered: both end in a newline, or neither does."""
    *earlier, last = spoken
    ends_line = last.data.endswith(b"\n")
    return any(
        turn.kind == "sent" and after.kind == "received" and turn.data.endswith(b"\n") == ends_line
        for turn, after in itertools.pairwise(earlier)
    )


def _pieces(trace_index: TraceIndex, peer: Socket) -> int:
    """Return in how many reads the last request came, if each one before came in one; otherwise 0."""
    *earlier, last = [turn for turn in turns(trace_index, peer) if turn.kind == "received"]
    count = len(last.calls)
    return count if count > 1 and all(len(turn.calls) == 1 for turn in earlier) else 0


def _end_not_sent(
    each: Standstill,
    peer: Socket,
    state: str,
    events: tuple[int, ...],
    *,
    has_more_lines: bool,
    has_stopped: bool = False,
) -> Finding:
    """Return the finding for a client that has an answer, and waits for its end."""
    other_reader = (
        " Or the lines that it waits for have come, and are in the buffer of another reader of the same "
        "connection."
    )
    if has_stopped:
        return Finding(
            "not-closed",
            "A server that shuts down waits until its connections end, and the client waits for the server",
            f"{state}. The server has closed its listener, and only this connection keeps it running: "
            "nothing closes it.",
            "At shutdown end the connections that are idle too, after a time limit for those that are not.",
            events,
            "inferred",
            "the listener is closed, and the server waits for this connection alone",
            process=each.waiter.process,
            sockets=(each.socket.number, peer.number),
            in_c="close(listener); for (i = 0; i < count; i++) shutdown(connections[i], SHUT_RDWR);",
            in_python="server.close(); writer.close()   # Node.js: sockets.forEach(s => s.end()); "
            "closeIdleConnections()",
        )
    return Finding(
        "not-closed",
        "The client waits for the end of the answer, and the connection stays open",
        f"{state}: probably it reads up to EOF, and the connection was not closed."
        + other_reader * has_more_lines,
        "Close the connection after the answer, or let the client stop at a length or a newline."
        + " Use one buffered reader for each connection." * has_more_lines,
        events,
        "inferred",
        "the whole answer was read, and the client goes on",
        process=each.waiter.process,
        sockets=(each.socket.number, peer.number),
        in_c="shutdown(c, SHUT_WR); close(c);",
        in_python="connection.close()  # after the answer, and of every makefile() of it",
    )


def _has_stopped_listening(trace_index: TraceIndex, each: Standstill) -> bool:
    """Return whether the listener of a connection was closed everywhere, after the connection was used."""
    listener = each.socket.accepted_from
    if listener is None or trace_index.holders_at(listener, each.moment.now):
        return False
    reads = each.receives(each.socket)
    closes = [call for call in trace_index.calls_by_socket[listener] if call.name == "close"]
    return bool(reads) and bool(closes) and closes[-1].at > reads[0].at


def waits_for_client_hello(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a server that probably waits for a TLS handshake, and a client that waits for a greeting."""
    return _of_kind(trace_index, "plain-to-tls")


def waits_for_end(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a client that has an answer and probably reads to EOF, at a server that waits for requests."""
    return _of_kind(trace_index, "not-closed")


def _nothing_sent(
    trace_index: TraceIndex, each: Standstill, peer: Socket, reader: ThreadState
) -> Finding | None:
    if each.waiter.activity != "read" or reader.has_limit or others_may_act(trace_index, each):
        return None
    name, other = name_of(trace_index, each.waiter.process), name_of(trace_index, reader.process)
    if reader.call is not None and reader.call.requested == HEADER_SIZE:
        return _client_hello_awaited(each, peer, reader, name, other)
    if awaits_stream_header(trace_index, each.waiter) and awaits_stream_header(trace_index, reader):
        return stream_header_awaited(each, peer, reader, name, other)
    return Finding(
        "unflushed",
        "Neither end has sent anything, and both wait",
        f"{capitalized(name)} waits in {call_name(each.waiter)} for {age(each, each.waiter)}, and {other} "
        f"waits in {call_name(reader)}, but no send() was called at either end. Either each expects the "
        f"other one to begin ({name} a greeting, {other} a request), or the request of {name} is in a "
        "buffer that was never flushed.",
        "If each end expects the other one to begin, let one begin: the protocol says which. Flush a "
        "buffered stream after each message.",
        evidence(each.waiter, reader),
        "inferred",
        "no byte was sent on the connection",
        process=each.waiter.process,
        sockets=(each.socket.number, peer.number),
        in_c=_FLUSH_IN_C,
        in_python=_FLUSH_IN_PYTHON,
    )


def _client_hello_awaited(
    each: Standstill, peer: Socket, reader: ThreadState, client: str, server: str
) -> Finding:
    return Finding(
        "plain-to-tls",
        "The server waits for a TLS handshake, and the client does not begin one",
        f"{capitalized(client)} waits in {call_name(each.waiter)} for {age(each, each.waiter)}, and {server} "
        f"waits in {call_name(reader)}: 5 bytes are the header of a TLS record. So probably {server} waits "
        f"for a ClientHello, and {client} for a greeting in plain text.",
        "Connect with TLS (https://, smtps://), or use the server's port without TLS.",
        evidence(each.waiter, reader),
        "inferred",
        "the read has the size of the header of a TLS record, and no byte was sent",
        process=each.waiter.process,
        sockets=(each.socket.number, peer.number),
        in_c="SSL *tls = SSL_new(context); SSL_set_fd(tls, fd); SSL_connect(tls);",
        in_python="s = context.wrap_socket(s, server_hostname=host)",
    )


def _nothing_from(each: Standstill, peer: Socket, other: str) -> str:
    sends = each.sends(peer)
    return f"{other} has sent nothing" if not sends else f"{other} has sent nothing since"
