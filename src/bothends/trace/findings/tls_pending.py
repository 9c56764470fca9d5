"""A rule about decrypted data that select() cannot see. Pure.

SSL_read() decrypts a whole record, and returns as much of it as was asked for. The rest is in the memory of
the TLS library: no poll(), select() or epoll_wait() reports it (SSL_pending(3)).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import RECEIVING, WAITING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.reading import others_may_act, watches_only
from bothends.trace.findings.standstill import (
    Standstill,
    ThreadState,
    age,
    bytes_text,
    call_name,
    evidence,
    standstills,
)
from bothends.trace.findings.turns import turns
from bothends.trace.model import Call, Socket
from bothends.trace.protocols.tls_records import HEADER_SIZE, is_client_hello, last_record

_OVERHEAD: Final = 17  # bytes of a record of TLS 1.3 that are no data: the hidden type and the tag
_MIN_RECORD: Final = 100  # bytes of data: a smaller record fits any read
_MIN_UNANSWERED: Final = 1_025  # bytes of data: more than the buffer of 1,024 bytes that programs read with
_MIN_REPLIES: Final = 2  # sends: several requests of one record were served

_IN_C: Final = "do { n = SSL_read(ssl, buf, sizeof buf); ... } while (SSL_pending(ssl) > 0);"
_IN_PYTHON: Final = "while True: data = tls.recv(4096); ...; if not tls.pending(): break"


def tls_data_pending(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a server that waits for a TLS socket, and has probably not handled all of the last record."""
    for each in standstills(trace_index):
        peer, wait = each.peer, each.waiter
        if peer is None or each.unread or each.unread_here or each.socket.accepted_from is not None:
            continue
        spoken = turns(trace_index, each.socket)
        if len(spoken) < 4 or not is_client_hello(spoken[0].data) or spoken[-1].kind != "received":
            continue
        if wait.call is None or wait.call.requested != HEADER_SIZE or others_may_act(trace_index, each):
            continue
        state = next((state for state in each.peers if state.waits_for(peer.number)), None)
        if state is None or state.call is None or state.call.name not in WAITING:
            continue
        record, reads = last_record(each.sends(each.socket)), each.receives(peer)
        if record is None or record.missing or not reads:
            continue
        replies = [call for call in each.sends(peer) if call.at >= reads[-1].at]
        size = record.size - _OVERHEAD
        if not replies and size >= _MIN_UNANSWERED and not _was_drained(trace_index, each, peer, state):
            yield _unanswered(trace_index, each, peer, state, reads[-1], size)
            continue
        if size < _MIN_RECORD or len(replies) < _MIN_REPLIES:
            continue
        server, client = name_of(trace_index, state.process), name_of(trace_index, wait.process)
        yield Finding(
            "tls-data-pending",
            "Decrypted data waits in the TLS library, where poll() cannot see it",
            f"{capitalized(server)} read a TLS record with about {bytes_text(size)} of data, sent "
            f"{len(replies)} replies, and waits in {call_name(state)} for {age(each, state)}, while {client} "
            f"waits in {call_name(wait)} for more. Nothing is left in the socket: probably a part of the "
            "record is still in the TLS library, decrypted and not yet handled.",
            "After each read ask whether more is pending, and read again before you wait; or read until "
            "SSL_ERROR_WANT_READ.",
            evidence(reads[-1], *replies[-1:], state, wait),
            certainty="inferred",
            basis="several replies followed one record, and all bytes of the connection were read",
            process=state.process,
            sockets=(each.socket.number, peer.number),
            in_c=_IN_C,
            in_python=_IN_PYTHON,
        )


def _was_drained(trace_index: TraceIndex, each: Standstill, peer: Socket, state: ThreadState) -> bool:
    """Return whether a program tried to read on after the last record, or does not only wait for this socket.

    A library that is asked until SSL_ERROR_WANT_READ looks for the next record first, and gets EAGAIN.
    """
    tried = any(
        call.name in RECEIVING and call.error == "EAGAIN"
        for call in trace_index.later_calls(each.receives(peer)[-1])
    )
    files = state.call is not None and bool(state.call.descriptors_waited)
    return tried or files or not watches_only(trace_index, state, peer)


def _unanswered(
    trace_index: TraceIndex, each: Standstill, peer: Socket, state: ThreadState, read: Call, size: int
) -> Finding:
    """Return the finding for a large record that got no answer at all."""
    server, client = name_of(trace_index, state.process), name_of(trace_index, each.waiter.process)
    return Finding(
        "tls-data-pending",
        "Decrypted data probably waits in the TLS library, where poll() cannot see it",
        f"{capitalized(server)} read a TLS record with about {bytes_text(size)} of data, sent nothing, and "
        f"waits in {call_name(state)} for {age(each, state)}, while {client} waits in "
        f"{call_name(each.waiter)} for the answer. Nothing is left in the socket, because the library reads "
        f"a record as a whole. If {server} asked it for less, the rest is still there, decrypted and not yet "
        f"handled; otherwise {client} has not sent all that {server} expects.",
        "After each read ask whether more is pending, and read again before you wait; or read until "
        "SSL_ERROR_WANT_READ.",
        evidence(read, state, each.waiter),
        certainty="inferred",
        basis="after the record it did not try to read on, and it waits for this socket alone",
        process=state.process,
        sockets=(each.socket.number, peer.number),
        in_c=_IN_C,
        in_python=_IN_PYTHON,
    )
