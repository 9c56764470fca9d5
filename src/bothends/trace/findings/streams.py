"""Rules about the use of streams: message boundaries, EOF, short sends, waiting. Pure.

A rule reports nothing unless the trace shows harm: bytes that were read later were not lost, and an error is
no mistake if the program handles it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Final

from bothends.trace.capture.calls import RECEIVING, SENDING, WAITING
from bothends.trace.findings.after_eof import neither_answers_nor_closes
from bothends.trace.findings.base import BLOCKED_NS, Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.long_lines import reads_over_limit
from bothends.trace.findings.resets import lost_bytes
from bothends.trace.findings.standstill import bytes_text
from bothends.trace.findings.turns import close_of, peer_socket, stream_of, turns
from bothends.trace.model import Call, Packet, Socket
from bothends.trace.protocols.tls_records import is_client_hello
from bothends.trace.rendering import formatting

IGNORED_EOFS: Final = 4  # libraries read EOF again two or three times
DELAYED_ACK_NS: Final = 25_000_000  # nanoseconds: Linux delays an acknowledgement by 40 ms, and nothing else
DELAYED_ACK_MAX_NS: Final = 250_000_000  # nanoseconds: the kernel's limit is 200 ms (TCP_DELACK_MAX)
NAGLE_TOTAL_NS: Final = 200_000_000  # nanoseconds in all: a few delays are not worth a word
SMALL_SEND: Final = 1400  # bytes: less than a segment on any path
READS_PER_MESSAGE: Final = 2  # a header and a body; a program that reads more often reads in a loop
CRASH_NS: Final = 1_000_000_000  # nanoseconds between an error that is not handled and the exit
_COMMAND: Final = re.compile(rb"[A-Z]{3,10}[ \r\n]")  # of a protocol, such as POST: not the bytes of a file
REPEATED_FAILURES: Final = 4  # a program that handles EPIPE stops before


def one_recv_per_message(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a program that read part of a message, never read the rest, and continued."""
    yield from _answered_too_early(trace_index)
    for socket in trace_index.sockets("stream"):
        receives = trace_index.receives(socket)
        receive = next((each for each in reversed(receives) if each.size), None)
        senders = trace_index.senders_of(receive) if receive is not None else []
        if (
            receive is None
            or not senders
            or _count_reads_since_send(trace_index, receive) > READS_PER_MESSAGE
        ):
            continue
        last = senders[-1]
        sends = trace_index.sends(socket)
        if sends and is_client_hello(sends[0].data):
            continue  # a TLS library reads the header of a record first
        if any(each.name in SENDING for each in trace_index.later_calls(last)):
            continue  # the peer sends a stream, and this end may have enough of it
        unread = trace_index.bytes_sent_by[last.number] - sum(each.size for each in receives)
        following = trace_index.next_call(receive)
        if unread <= 0 or (following is not None and following.name in RECEIVING | WAITING):
            continue
        if following is None and trace_index.ended_at(receive.process) is None:
            continue  # it may read on after the end of the trace
        if reads_over_limit(trace_index, socket):
            continue  # it read on, up to the limit of a line
        yield Finding(
            "one-recv-per-message",
            "The program takes one recv for one message",
            f"The peer sent {last.size} bytes in one send. This read got {receive.size}, and the program "
            f"continued without the other {unread}.",
            "TCP has no messages: read in a loop until the message is complete (by its length, a "
            "line's end, or EOF).",
            (last.number, receive.number, *((following.number,) if following else ())),
            process=receive.process,
            sockets=(socket.number,),
            in_c="while (n < length && (r = recv(fd, buf + n, length - n, 0)) > 0) n += r;",
            in_python="while len(data) < length and (piece := s.recv(length - len(data))): data += piece",
        )


def _answered_too_early(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a server that answered the first read of an upload, and never what came after it.

    The client sends all of it and ends its direction, whatever the server answers meanwhile, and then fails.
    """
    for socket in trace_index.sockets("stream"):
        peer = peer_socket(trace_index, socket)
        if socket.accepted_from is None or peer is None or socket.is_wrapped:
            continue
        sends, uploads = trace_index.sends(socket), trace_index.sends(peer)
        receives = [call for call in trace_index.receives(socket) if call.size]
        ended = next(iter(trace_index.calls_at(peer.number, "shutdown")), None)
        if len(sends) != 1 or len(receives) < 2 or ended is None or not uploads:
            continue
        answer, total = sends[0], sum(call.size for call in uploads)
        read = sum(
            call.size for call in receives if trace_index.position(call) < trace_index.position(answer)
        )
        has_failed = bool(trace_index.process(ended.process).status)
        if not 0 < read < total or read != receives[0].size or not has_failed:
            continue
        if answer.data.startswith(b"HTTP/") or _COMMAND.match(uploads[0].data):
            continue  # an error of HTTP may be sent before the whole body is read
        if is_client_hello(uploads[0].data):
            continue  # a TLS server answers it before anything else comes
        yield Finding(
            "one-recv-per-message",
            "The program takes one recv for one message",
            f"The client sent {total:,} bytes and ended its direction. The server read {read:,} of them, "
            "sent its answer, and sent nothing after it had read the rest. The client then exited with an "
            "error.",
            "TCP has no messages: read in a loop until the message is complete (by its length, a "
            "line's end, or EOF), and answer then.",
            (uploads[-1].number, receives[0].number, answer.number),
            certainty="inferred",
            basis=f"one answer, after the first of {len(receives)} reads, and the client failed",
            process=answer.process,
            sockets=(socket.number, peer.number),
            in_c="while ((r = recv(fd, buf + n, sizeof buf - n, 0)) > 0) n += r;   /* up to EOF */",
            in_python="data = b''.join(iter(lambda: s.recv(65536), b''))   # in Node.js: on('end')",
        )


def _count_reads_since_send(trace_index: TraceIndex, receive: Call) -> int:
    """Return the number of reads on the same socket since its last send, with this one."""
    count = 0
    for call in trace_index.calls_by_socket[receive.socket or 0]:
        if call.number == receive.number:
            break
        if call.name in SENDING and call.size:
            count = 0
        elif call.name in RECEIVING and call.size and "MSG_PEEK" not in call.flags:
            count += 1
    return count + 1


def short_send(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a send that accepted fewer bytes than it was given, after which the rest was not sent."""
    for socket in trace_index.sockets("stream"):
        sends = trace_index.calls_at(socket.number, *SENDING)
        for index, call in enumerate(sends):
            if call.failed or call.result is None or call.requested is None or call.size >= call.requested:
                continue
            following = sends[index + 1] if index + 1 < len(sends) else None
            if call.name in ("sendfile", "splice") or not _is_rest_lost(trace_index, call, following):
                continue
            yield Finding(
                "short-send",
                "The program ignores a short send",
                f"send accepted {call.size} of {call.requested} bytes, and the rest was never sent.",
                "Call send in a loop with the remaining bytes; in Python use sendall().",
                (call.number, *((following.number,) if following is not None else ())),
                process=call.process,
                sockets=(socket.number,),
                in_c="while (sent < size && (r = send(fd, buf + sent, size - sent, 0)) > 0) sent += r;",
                in_python="s.sendall(data)",
            )
            break


def _is_rest_lost(trace_index: TraceIndex, call: Call, following: Call | None) -> bool:
    """Return whether the bytes that a short send did not accept were certainly not sent later."""
    if following is not None:
        rest = call.data[call.size : call.size + 64]
        overlap = min(len(rest), len(following.data))
        return bool(rest) and following.data[:overlap] != rest[:overlap]  # if the rest is unknown: no
    for later in trace_index.later_calls(call):
        if later.error in ("ECONNRESET", "EPIPE") or (later.name in RECEIVING and later.result == 0):
            return False  # the peer has closed the connection, so the rest has no reader
    closed = any(each.name in ("close", "shutdown") for each in trace_index.later_calls(call))
    waits = trace_index.next_call(call)
    return (
        closed
        or trace_index.ended_at(call.process) is not None
        or (waits is not None and waits.name in RECEIVING and not waits.failed)
        or _waits_for_input_only(trace_index, call)
    )


def _waits_for_input_only(trace_index: TraceIndex, call: Call) -> bool:
    """Return whether the thread went on to wait for data of a socket for good, and not for room in it."""
    socket = call.socket or 0
    waits = [
        each
        for each in trace_index.calls_by_process[call.process]
        if each.at > call.at and each.thread == call.thread and socket in each.sockets
    ]
    if not waits or waits[-1].until is not None:
        return False
    wanted = [dict(zip(each.sockets, each.wanted_events, strict=False)).get(socket, "") for each in waits]
    return all(each and "OUT" not in each for each in wanted)


def two_sends_one_read(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find two messages that arrived in one read and got one reply, while the sender waits for another."""
    for socket in trace_index.sockets("stream"):
        for receive in trace_index.receives(socket):
            senders = trace_index.senders_of(receive)
            if len(senders) < 2 or not receive.size or sum(each.size for each in senders) != receive.size:
                continue
            replies = [each for each in trace_index.later_calls(receive) if each.name in SENDING]
            if len(replies) != 1 or not _are_messages(senders) or replies[0].data.count(b"\n") > 1:
                continue
            waiting = _pending_read(trace_index, senders[-1], replies[0].size)
            if waiting is None:
                continue
            pieces = " and ".join(formatting.quoted(each.data, each.size, 16) for each in senders[:2])
            yield Finding(
                "two-sends-one-read",
                "The program probably takes two sends for one message",
                f"{len(senders)} sends of the peer, {pieces}, arrived in one read and got one reply, and the "
                "peer waits for another.",
                "Split the stream into messages by length or by line ends, independently of the reads.",
                (*(each.number for each in senders), receive.number, replies[0].number, waiting.number),
                certainty="inferred",
                basis="each send looks like a whole message",
                process=receive.process,
                sockets=(socket.number,),
                in_c='FILE *in = fdopen(fd, "r"); while (getline(&line, &size, in) > 0) answer(line);',
                in_python='for line in s.makefile("rb"): answer(line)',
            )
            break


def _are_messages(sends: Sequence[Call]) -> bool:
    """Return whether each send looks like a whole message: a line, text without any, or all of one size."""
    data = [each.data[: each.size] for each in sends]
    if any(each.strip() == b"" or b"\n\r\n" in each or b"\n\n" in each for each in data):
        return False  # the lines of a header are one message
    if all(each.isascii() and each.decode("ascii").isprintable() for each in data):
        return not any(each.strip().isdigit() for each in data)  # a length and its message
    return all(each.endswith(b"\n") for each in data) or len({each.size for each in sends}) == 1


def _pending_read(trace_index: TraceIndex, send: Call, received: int) -> Call | None:
    """Return the call that waits in vain for data, after `received` bytes, on the socket of a send."""
    for call in trace_index.calls_by_process[send.process]:
        reads = call.name in RECEIVING and call.socket == send.socket
        if call.number <= send.number or not (reads or call.sockets == (send.socket,)):
            continue
        received -= call.size
        timed_out = call.error == "EAGAIN" or (call.name in WAITING and call.result == 0)
        lasted = (call.until if call.until is not None else trace_index.end) - call.at
        if received == 0 and (call.until is None or timed_out) and lasted >= BLOCKED_NS:
            return call
    return None


def closed_with_unread_data(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a connection that was closed with unread data: the kernel sends RST, and the peer is harmed."""
    for packet in trace_index.packets:
        if "RST" not in packet.flags or packet.sender is None or packet.lost:
            continue
        socket = trace_index.trace.sockets.get(packet.sender)
        peer = trace_index.trace.sockets.get(packet.receiver or 0)
        closes = [
            cause
            for link in trace_index.trace.causes_of(packet.number)
            if link.kind == "resets" and isinstance(cause := trace_index.trace.event(link.cause), Call)
        ]
        if socket is None or peer is None or not closes:
            continue
        arrived = _arrived_before(trace_index, socket, closes[-1])
        unread = sum(each.size for each in arrived if not each.resent) - sum(
            each.size for each in trace_index.receives(socket)
        )
        harm = _harm_of_reset(trace_index, socket, peer, packet) if unread > 0 else None
        if harm is None:
            continue
        count = "1 byte was" if unread == 1 else f"{unread} bytes were"
        text, failed = harm
        yield Finding(
            "closed-with-unread-data",
            "A connection was closed with unread data, and so reset",
            f"{count} in the receive buffer, unread, so close() sent RST instead of FIN. {text}",
            "Read to EOF before you close: call shutdown(SHUT_WR), then recv() until it returns 0 bytes.",
            (
                arrived[-1].number,
                closes[-1].number,
                packet.number,
                *((failed.number,) if failed is not None else ()),
            ),
            process=closes[-1].process,
            sockets=(socket.number, peer.number),
            in_c="shutdown(fd, SHUT_WR); while (read(fd, buf, sizeof buf) > 0) {} close(fd);",
            in_python="s.shutdown(socket.SHUT_WR); while s.recv(65536): pass",
        )


def _arrived_before(trace_index: TraceIndex, socket: Socket, close: Call) -> list[Packet]:
    """Return the packets with data that arrived at a socket before it was closed."""
    return [
        each
        for each in trace_index.packets_to[socket.number]
        if each.size and not each.lost and (each.until if each.until is not None else each.at) <= close.at
    ]


def _harm_of_reset(
    trace_index: TraceIndex, socket: Socket, peer: Socket, reset: Packet
) -> tuple[str, Call | None] | None:
    """Return what a reset did to the peer of the closed socket, and the call that shows it; None: nothing.

    A client that closes a connection because it has enough of a download loses nothing that it needs.
    """
    is_server = socket.accepted_from is not None
    if _is_sending(trace_index, peer, reset) and not is_server:
        return None
    if any(each.name == "close" and each.at < reset.at for each in trace_index.calls_by_socket[peer.number]):
        return None  # both ends have closed
    failed = next(
        (
            each
            for each in trace_index.calls_by_socket[peer.number]
            if each.name in RECEIVING
            and each.error == "ECONNRESET"
            and (each.until or each.at) >= reset.at - BLOCKED_NS
        ),
        None,
    )
    sent = sum(each.size for each in trace_index.sends(socket))
    lost = sent - sum(each.size for each in trace_index.receives(peer))
    if lost > 0 and (failed is not None or is_server):
        count = "1 byte" if lost == 1 else f"{lost} bytes"
        which = lost_bytes(trace_index, socket, peer)
        return f"The peer never read the last {count} that were sent to it{which}.", failed
    if failed is not None and is_server and not _is_sending(trace_index, peer, reset):
        return "The peer's read failed with ECONNRESET.", failed
    return None


def _is_sending(trace_index: TraceIndex, socket: Socket, reset: Packet) -> bool:
    """Return whether a socket was still sending when it was reset."""
    return any(
        each.name in SENDING and (each.until is None or each.until >= reset.at or each.failed)
        for each in trace_index.calls_by_socket[socket.number]
    )


def eof_ignored(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a thread that reads EOF repeatedly, or that sleeps after it."""
    yield from neither_answers_nor_closes(trace_index)
    found: dict[int, list[list[Call]]] = {}  # by process: the reads of EOF of each socket
    for socket in trace_index.sockets("stream"):
        eofs: dict[int, list[Call]] = {}
        for call in trace_index.receives(socket):
            if call.size == 0 and call.requested != 0:
                eofs.setdefault(call.thread, []).append(call)
        often = [calls for calls in eofs.values() if len(calls) >= IGNORED_EOFS]
        for calls in often[:1]:
            found.setdefault(calls[0].process, []).append(calls)
    for process, each in found.items():
        calls = max(each, key=len)
        within = formatting.duration((calls[-1].until or calls[-1].at) - calls[0].at)
        others = sorted({other[0].descriptor or 0 for other in each} - {calls[0].descriptor})
        as_well = f" So did the one on descriptor {', '.join(map(str, others))}." if others else ""
        yield Finding(
            "eof-ignored",
            "The program ignores EOF",
            f"recv() on descriptor {calls[0].descriptor} returned 0 bytes {len(calls):,} times "
            f"within {within}.{as_well} The peer had finished before the first: EOF stays readable.",
            "0 bytes mean EOF, not an empty message: stop reading, and close the socket.",
            tuple(call.number for call in (*calls[:3], calls[-1])),
            process=process,
            sockets=tuple(other[0].socket or 0 for other in each),
            in_c="if (n == 0) { close(fd); break; }",
            in_python="if not data: break",
        )


def write_after_close(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a send to a peer that had closed the connection, if it ends the program or is repeated."""
    return (each for each in _failed_sends(trace_index) if each.rule == "write-after-close")


def _failed_sends(trace_index: TraceIndex) -> Iterator[Finding]:
    for socket in trace_index.sockets("stream"):
        failed = [
            call
            for call in trace_index.calls_at(socket.number, *SENDING)
            if call.error in ("EPIPE", "ECONNRESET")
        ]
        if not failed:
            continue
        ended = _crash_after(trace_index, failed[-1])
        if ended is None and len(failed) < REPEATED_FAILURES:
            continue  # the program handles the error
        if trace_index.process(failed[-1].process).status == -13:
            continue  # sigpipe
        error = failed[0].error
        if ended is None:
            text = f"The send failed with {error}, and {len(failed) - 1} more sends followed."
        else:
            text = f"The send failed with {error}, and the program exited with an error."
        unread = _answer_not_read(trace_index, socket, failed[0])
        if unread is not None:
            yield unread
            continue
        answered = _one_answer(trace_index, socket, failed[0], text)
        if answered is not None:
            yield answered
            continue
        yield Finding(
            "write-after-close",
            "The program sends to a peer that has closed the connection",
            text,
            "Handle EPIPE (MSG_NOSIGNAL prevents SIGPIPE). Also read from the socket: 0 bytes show "
            "earlier that the peer has closed.",
            (*(call.number for call in failed[:4]), *((ended,) if ended is not None else ())),
            process=failed[0].process,
            sockets=(socket.number,),
            in_c="n = send(fd, buf, size, MSG_NOSIGNAL); if (n < 0 && errno == EPIPE) close(fd);",
            in_python="except (BrokenPipeError, ConnectionResetError): s.close()",
        )


def _one_answer(trace_index: TraceIndex, socket: Socket, failed: Call, result: str) -> Finding | None:
    """Return the finding about a server that closes after one answer, and a client that sends on.

    `result`: what the failed send led to, as a sentence.
    """
    peer = peer_socket(trace_index, socket)
    close = close_of(trace_index, peer) if peer is not None else None
    if peer is None or close is None or peer.accepted_from is None:
        return None
    spoken = turns(trace_index, socket)
    if [turn.kind for turn in turns(trace_index, peer)] != ["received", "sent"]:
        return None
    if [turn.kind for turn in spoken[:3]] != ["sent", "received", "sent"]:
        return None
    _, answer, following = spoken[:3]
    server, client = name_of(trace_index, close.process), name_of(trace_index, failed.process)
    answered = formatting.quoted(answer.data, answer.total, 24)
    asked = formatting.quoted(following.data, following.total, 24)
    return Finding(
        "write-after-close",
        "The server closes the connection after one answer, and the client sends on",
        f"{capitalized(server)} sent one answer, {answered}, and closed the connection without another "
        f"read. {capitalized(client)} sent its next request, {asked}, on that connection. {result}",
        "Serve requests in a loop until recv() returns 0, in handle() of socketserver, too. Or, if the "
        "protocol has one request on each connection, connect again for the next one.",
        (answer.calls[-1].number, close.number, following.calls[0].number, failed.number),
        process=close.process,
        sockets=(socket.number, peer.number),
        in_c="while ((n = recv(c, buf, sizeof buf, 0)) > 0) answer(c, buf, n);   /* then close(c) */",
        in_python="while data := connection.recv(4096): connection.sendall(answer(data))",
    )


def _answer_not_read(trace_index: TraceIndex, socket: Socket, failed: Call) -> Finding | None:
    """Return the finding about a server that answered and closed before it had read the whole request."""
    peer = peer_socket(trace_index, socket)
    close = close_of(trace_index, peer) if peer is not None else None
    if peer is None or close is None or peer.accepted_from is None or close.name != "close":
        return None
    sent, got = stream_of(trace_index, peer, "sent"), stream_of(trace_index, socket, "received")
    read = sum(call.size for call in trace_index.receives(peer))
    if sent.total <= got.total or close.at > (failed.until or failed.at):
        return None
    server, client = name_of(trace_index, close.process), name_of(trace_index, failed.process)
    return Finding(
        "answer-before-request-read",
        "The server answered and closed before it had read the request, and its answer was lost",
        f"{capitalized(server)} had read {bytes_text(read)} when it sent an answer of "
        f"{bytes_text(sent.total - got.total)}{lost_bytes(trace_index, peer, socket)}, and closed the "
        f"connection. {capitalized(client)} was still sending: its send failed with {failed.error}, as "
        "the kernel answers bytes for a closed socket with RST, and it never read the answer.",
        "Read the rest of the request before you close, or shutdown(SHUT_WR) and read until EOF. "
        "In the client, read what has come when a send fails, or send Expect: 100-continue first.",
        (sent.calls[-1].number, close.number, failed.number),
        process=close.process,
        sockets=(socket.number, peer.number),
        in_c="shutdown(fd, SHUT_WR); while (read(fd, buf, sizeof buf) > 0) {} close(fd);",
        in_python="s.shutdown(socket.SHUT_WR); while s.recv(65536): pass",
    )


def answer_before_request_read(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find an answer that was lost because the server closed while the client was still sending."""
    return (each for each in _failed_sends(trace_index) if each.rule == "answer-before-request-read")


def _crash_after(trace_index: TraceIndex, call: Call) -> int | None:
    """Return the event of a process that exited with an error soon after a call failed, or None."""
    status = trace_index.process(call.process).status
    if status is None or status <= 0:  # signals come from outside; SIGPIPE has a rule of its own
        return None
    for event in trace_index.process_events:
        if event.process == call.process and event.kind == "ended":
            return event.number if event.at - (call.until or call.at) < CRASH_NS else None
    return None


def nagle_delayed_ack(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find small sends that waited for acknowledgements of those before, which the peer delayed."""
    for socket in trace_index.sockets("stream"):
        if trace_index.has_option(socket, "TCP_NODELAY", trace_index.end) or _was_full(trace_index, socket):
            continue
        delays: dict[int, tuple[int, Call, Call, Packet]] = {}  # by packet: it may carry several sends
        sends = trace_index.sends(socket)
        for previous, call in itertools.pairwise(sends):
            packet = _delayed_packet(trace_index, socket, previous, call)
            if packet is not None:
                delays.setdefault(packet.number, (packet.at - call.at, previous, call, packet))
        total = sum(each[0] for each in delays.values())
        if total < NAGLE_TOTAL_NS:
            continue
        longest, previous, call, packet = max(delays.values(), key=lambda each: each[0])
        yield Finding(
            "nagle-delayed-ack",
            "Nagle's algorithm waited for an acknowledgement",
            f"The second of two small sends was delayed {_times(len(delays))}, until the first was acked: "
            f"by {formatting.duration(longest)} at most, and by {formatting.duration(total)} in all.",
            "Put a whole message into one send, or set TCP_NODELAY.",
            (previous.number, call.number, packet.number),
            process=call.process,
            sockets=(socket.number,),
            in_c="setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));",
            in_python="s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)",
        )


def _was_full(trace_index: TraceIndex, socket: Socket) -> bool:
    """Return whether the peer announced a window of 0: then packets waited for that."""
    return any(
        not each.window and "RST" not in each.flags and "SYN" not in each.flags
        for each in trace_index.packets_to[socket.number]
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _delayed_packet(trace_index: TraceIndex, socket: Socket, previous: Call, call: Call) -> Packet | None:
    """Return the packet that carries a small send and waited for an acknowledgement, or None."""
    if call.size > SMALL_SEND or previous.size > SMALL_SEND:
        return None
    if "MSG_MORE" in call.flags or "MSG_MORE" in previous.flags:
        return None
    for link in trace_index.trace.effects_of(call.number):
        packet = trace_index.trace.event(link.effect)
        if link.kind == "carries" and isinstance(packet, Packet):
            delayed = (
                DELAYED_ACK_NS <= packet.at - call.at <= DELAYED_ACK_MAX_NS and packet.size <= SMALL_SEND
            )
            return packet if delayed and _acked_between(trace_index, socket, call.at, packet.at) else None
    return None


def _acked_between(trace_index: TraceIndex, socket: Socket, start: int, end: int) -> bool:
    return any(not each.size and start < each.at <= end for each in trace_index.packets_to[socket.number])
