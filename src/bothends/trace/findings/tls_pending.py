"""A rule about decrypted data that select() cannot see. Pure.

SSL_read() decrypts a whole record, and returns as much of it as was asked for. The rest is in the memory of
the TLS library: no poll(), select() or epoll_wait() reports it (SSL_pending(3)).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import WAITING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.reading import others_may_act
from bothends.trace.findings.standstill import age, bytes_text, call_name, evidence, standstills
from bothends.trace.findings.tls_records import HEADER_SIZE, is_client_hello, last_record
from bothends.trace.findings.turns import turns

_OVERHEAD: Final = 17  # bytes of a record of TLS 1.3 that are no data: the hidden type and the tag
_MIN_RECORD: Final = 100  # bytes of data: a smaller record fits any read
_MIN_REPLIES: Final = 2  # sends: several requests of one record were served


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
            in_c="do { n = SSL_read(ssl, buf, sizeof buf); ... } while (SSL_pending(ssl) > 0);",
            in_python="while True: data = tls.recv(4096); ...; if not tls.pending(): break",
        )
