"""Rules about output that stays in the program's own memory after a send found no room. Pure.

send(7, 8080173) = 1654942    a short send
send(7, 6425231) = EAGAIN     the send buffer is full
exit                                                           exited-with-unsent-data
epoll_wait(EPOLLIN alone)     nothing says when there is room  send-not-resumed
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import SENDING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.standstill import (
    Standstill,
    ThreadState,
    age,
    bytes_text,
    call_name,
    evidence,
    standstills,
)
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting

_RETRY_NS: Final = 3_000_000_000  # nanoseconds after which a loop with a time limit has had its turn
_PROMPTLY_NS: Final = 200_000_000  # nanoseconds between the send that found no room and the exit


def exited_with_unsent_data(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a program that got EAGAIN for a part of its output, and exited without sending it."""
    for socket in trace_index.sockets("stream"):
        sends = [call for call in trace_index.calls_by_socket[socket.number] if call.name in SENDING]
        # An event loop keeps the rest of a short send in memory, until the socket is writable.
        is_rest = len(sends) > 1 and _leaves_a_rest(sends[-2], sends[-1])
        is_first = bool(sends) and _awaits_room_after(trace_index, sends[-1])
        if not is_rest and not is_first:
            continue
        last = sends[-1]
        ended, status = trace_index.ended_at(last.process), trace_index.process(last.process).status
        if ended is None or status is None or status < 0 or ended - last.at > _PROMPTLY_NS:
            continue
        if any("RST" in packet.flags for packet in trace_index.packets_to[socket.number]):
            continue
        unsent = (last.requested or 0) - last.size
        name = name_of(trace_index, last.process)
        yield Finding(
            "exited-with-unsent-data",
            "The program exited before all of its output was sent",
            f"{capitalized(name)} exited with status {status} {formatting.duration(ended - last.at)} after a "
            f"send that found the send buffer full: {bytes_text(unsent)} of the "
            f"{bytes_text(last.requested or 0)} that it had left to send were still in its memory, and are "
            "lost.",
            "Exit when everything is sent: in Node.js in the callback of end(), not by process.exit() after "
            "it; with asyncio after await writer.drain() and writer.wait_closed().",
            tuple(call.number for call in (sends[-2:] if is_rest else [last])),
            process=last.process,
            sockets=(socket.number,),
            in_c="while (left > 0) { poll(&(struct pollfd){fd, POLLOUT}, 1, -1); n = send(...); left -= n; }",
            in_python="await writer.drain(); writer.close(); await writer.wait_closed()",
        )


def _awaits_room_after(trace_index: TraceIndex, last: Call) -> bool:
    """Return whether the last send was short, and the program then asked epoll for room."""
    is_short = not last.failed and 0 < last.size < (last.requested or 0)
    return is_short and any(
        call.name == "epoll_ctl" and "EPOLLOUT" in " ".join(call.arguments)
        for call in trace_index.later_calls(last)
    )


def _leaves_a_rest(before: Call, last: Call) -> bool:
    """Return whether the last send was the rest of a short one, and was not accepted as a whole either."""
    rest = (before.requested or 0) - before.size
    is_short = last.error == "EAGAIN" or last.size < (last.requested or 0)
    return not before.failed and 0 < rest == last.requested and is_short


def send_not_resumed(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a rest that a full send buffer did not take, and for which nothing waits until there is room."""
    done = set[int]()
    for each in standstills(trace_index):
        peer = each.peer
        if peer is None or peer.number in done or each.unread_here:
            continue
        if not each.waiter.waits_for(each.socket.number):
            continue
        short, refused = _rest_without_room(trace_index, each, peer)
        state = _idle(each, peer)
        if short is None or refused is None or state is None:
            continue
        done.add(peer.number)
        unsent = (short.requested or 0) - short.size
        sender, reader = name_of(trace_index, short.process), name_of(trace_index, each.waiter.process)
        yield Finding(
            "send-not-resumed",
            "The rest of a message is not sent when the send buffer has room again",
            f"A send of {sender} accepted {short.size:,} of {bytes_text(short.requested or 0)}, the next one "
            f"failed with EAGAIN because the send buffer was full, and the other {unsent:,} were never sent. "
            f"{capitalized(reader)} has read all that came, so there is room again, but "
            f"{_what_it_awaits(trace_index, state, peer, refused, sender)}. {capitalized(reader)} waits in "
            f"{call_name(each.waiter)} for {age(each, each.waiter)}.",
            "Keep the rest, wait until the socket is writable (POLLOUT, EPOLLOUT), and send on from there, "
            "until all is sent. In Python sendall() on a non-blocking socket loses count of what was sent.",
            evidence(short, refused, state, each.waiter),
            process=short.process,
            sockets=(each.socket.number, peer.number),
            in_c="if (left > 0) { ev.events = EPOLLIN | EPOLLOUT; epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev); }",
            in_python="sent = s.send(rest); rest = rest[sent:]   # if rest: selector.modify(s, READ | WRITE)",
        )


def _rest_without_room(
    trace_index: TraceIndex, each: Standstill, peer: Socket
) -> tuple[Call | None, Call | None]:
    """Return the last short send of a socket and the EAGAIN after it, if no send succeeded since."""
    refused: Call | None = None
    for call in reversed(trace_index.calls_by_socket[peer.number]):
        if call.name not in SENDING or call.at > each.moment.now or call.name in ("sendfile", "splice"):
            continue
        if call.error == "EAGAIN":
            refused = call
            continue
        is_short = not call.failed and 0 < call.size < (call.requested or 0)
        return (call, refused) if is_short and refused is not None else (None, None)
    return None, None


def _idle(each: Standstill, peer: Socket) -> ThreadState | None:
    """Return what the sender does, if none of its threads will send without more input; otherwise None."""
    states = each.peers
    for state in states:
        if state.activity not in ("read", "events", "accept", "lock"):
            return None
        if state.has_limit and each.length < _RETRY_NS:
            return None
        call = state.call
        if call is not None and "OUT" in dict(zip(call.sockets, call.wanted_events, strict=False)).get(
            peer.number, ""
        ):
            return None
    waiting = [state for state in states if state.activity != "lock"]
    return waiting[0] if waiting else None


def _what_it_awaits(
    trace_index: TraceIndex, state: ThreadState, peer: Socket, refused: Call, sender: str
) -> str:
    changes = [
        call.arguments[3]
        for call in trace_index.calls_by_socket[peer.number]
        if call.name == "epoll_ctl" and call.at > refused.at and len(call.arguments) > 3
    ]
    asked = [at for at, events in enumerate(changes) if "EPOLLOUT" in events]
    if asked and asked[-1] < len(changes) - 1:
        return f"{sender} asked epoll for EPOLLOUT and took it back with the next epoll_ctl()"
    for_input = "for input alone" if peer.number in state.sockets else "and not for room in this socket"
    return f"{sender} waits in {call_name(state)} {for_input}"
