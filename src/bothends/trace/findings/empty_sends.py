"""A rule about a message of no bytes, which a stream does not transmit. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from bothends.trace.capture.calls import RECEIVING, SENDING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.standstill import Standstill, age, call_name, evidence, standstills
from bothends.trace.findings.turns import turns
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting


def empty_send(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a send of 0 bytes, after which the peer waits for the message that it stands for."""
    done = set[int]()
    for each in standstills(trace_index):
        peer = each.peer
        if peer is None or each.unread or each.unread_here or not each.waiter.waits_for(each.socket.number):
            continue
        if each.socket.number in done:
            continue
        sender, empty = peer, _empty_message(trace_index, each, peer)
        if empty is None and any(state.waits_for(peer.number) for state in each.peers):
            sender, empty = each.socket, _empty_message(trace_index, each, each.socket)
        if empty is not None:
            done |= {each.socket.number, peer.number}
            yield _finding(trace_index, each, empty, sender)


def _empty_message(trace_index: TraceIndex, each: Standstill, socket: Socket) -> Call | None:
    """Return the send of 0 bytes which is all that a socket has sent since it received something, or None.

    An empty payload after a header is none: the header says that it is empty.
    """
    found = None
    for call in reversed(trace_index.calls_by_socket[socket.number]):
        if call.until is None or call.until > each.moment.now or call.failed:
            continue
        if call.name in RECEIVING and call.size:
            break
        if call.name in SENDING and call.size:
            return None
        if call.name in SENDING and call.requested == 0:
            found = call
    return found


def _finding(trace_index: TraceIndex, each: Standstill, empty: Call, sender: Socket) -> Finding:
    assert each.peer is not None
    is_answer = sender is each.peer
    name = name_of(trace_index, empty.process)
    waiter = (
        name_of(trace_index, each.waiter.process)
        if is_answer
        else name_of(trace_index, each.peers[0].process)
    )
    received = [turn for turn in turns(trace_index, sender) if turn.kind == "received"]
    request = formatting.quoted(received[-1].data, received[-1].total, 24) if received else ""
    before = f" read {request}, and then" if is_answer and request else ""
    other = "" if is_answer else f", and {name} for the answer"
    return Finding(
        "empty-send",
        f"{capitalized(name)} sent {'an answer' if is_answer else 'a message'} of no bytes: a stream does "
        "not transmit it",
        f"{capitalized(name)}{before} called {call_name(empty)}. A send of 0 bytes transmits nothing on a "
        f"stream, so {waiter} cannot know of the message: {waiter} waits{other}, for "
        f"{age(each, each.waiter)}.",
        "Give each message a length in front, which may be 0, or a delimiter at its end; or replace an empty "
        "message by one that says so.",
        evidence(*(received[-1].calls[-1:] if received else ()), empty, each.waiter),
        process=empty.process,
        sockets=(each.socket.number, each.peer.number),
        in_c="uint32_t n = htonl(size); send(c, &n, sizeof n, 0); send(c, data, size, 0);",
        in_python='connection.sendall(struct.pack("!I", len(data)) + data)',
    )
