"""Describe waits in sentences: which call waits for which process, since when, what is in flight. Pure.

    Deadlock: each end waits for the other, for 5.2 s. The client waits in recv(3, 100), and ...
    The client waits in recv(3, 100) for data from the server, for 5.2 s. The server sleeps for 10 s.

Text of programs is safe to print: roles and calls are escaped when they are decoded.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting
from bothends.trace.rendering.layout import WaitArrow
from bothends.trace.waits.graph import PendingWait, WaitsAtEnd

MAX_SENTENCES: Final = 8
_SHOWN: Final = 24  # bytes of what was sent last

_NAMES: Final = {
    "recvfrom": "recv",
    "sendto": "send",
    "accept4": "accept",
    "pselect6": "select",
    "_newselect": "select",
    "ppoll": "poll",
    "epoll_pwait": "epoll_wait",
    "epoll_pwait2": "epoll_wait",
    "wait4": "wait",
    "waitid": "wait",
    "clock_nanosleep": "sleep",
    "nanosleep": "sleep",
}


_SHORT_NEEDS: Final = {"space": "a read", "peer": "an answer", "child": "its exit"}


def sentences(waits: WaitsAtEnd, min_age: int = 0) -> list[str]:
    """Return what the calls wait for that have been blocked for `min_age` nanoseconds: deadlocks first."""
    found: list[str] = []
    described: set[int] = set()
    for cycle in [*waits.cycles(), *waits.mutual()]:
        is_old = all(waits.now - each.since >= min_age for each in cycle)
        if is_old and not described & {each.thread for each in cycle}:
            found.append(cycle_sentence(waits, cycle))
            described |= {each.thread for each in cycle}
    for wait in _chain_starts(waits, described):
        if waits.now - wait.since < min_age:
            continue
        found.append(chain_sentence(waits, wait))
        described |= {each.thread for each in waits.chain(wait)}
    for wait in waits.waits:
        if wait.thread not in described and waits.now - wait.since >= min_age:
            found += _elsewhere(waits, wait)
    if len(found) > MAX_SENTENCES:
        found[MAX_SENTENCES:] = [f"{len(found) - MAX_SENTENCES} more calls are blocked."]
    return found


def wait_arrows(waits: WaitsAtEnd, min_age: int = 0) -> list[WaitArrow]:
    """Return the arrows of the waits that `sentences` describes, between processes."""
    found: dict[tuple[int, int], WaitArrow] = {}
    starts = [each for cycle in [*waits.cycles(), *waits.mutual()] for each in cycle]
    for start in [*starts, *_chain_starts(waits, {each.thread for each in starts})]:
        if waits.now - start.since < min_age:
            continue
        for wait, following in itertools.pairwise(waits.chain(start)):
            text = f"waits for {_SHORT_NEEDS.get(wait.need, wait.need)}"
            arrow = WaitArrow(wait.process, following.process, text, wait.call.number)
            found.setdefault(arrow[:2], arrow)
    return list(found.values())


def _elsewhere(waits: WaitsAtEnd, wait: PendingWait) -> Iterator[str]:
    """Describe a thread that waits for something else while bytes lie unread on its connections."""
    if wait.need not in ("input", "time", "child", "connection", "lock"):
        return
    for socket in waits.sockets_of(wait.thread):
        unread = waits.unread(socket)
        if unread and socket not in wait.sockets:
            peer = waits.trace_index.peer_of(socket)
            senders = waits.trace_index.holders_at(peer, waits.now) if peer is not None else {}
            source = f" from {name_of(waits.trace_index, min(senders))}" if senders else ""
            yield (
                f"{capitalized(_state(waits, wait))}. Meanwhile {count(unread)}{source} "
                "on a connection of this thread are unread."
            )


def _chain_starts(waits: WaitsAtEnd, described: set[int]) -> Iterator[PendingWait]:
    """Return the waits for peers that no other such wait leads to."""
    candidates = [
        each
        for each in waits.waits
        if each.thread not in described
        and (each.need in ("data", "space", "peer") or (each.need == "child" and each.thread in waits.stuck))
        and not _is_idle_server(waits, each)
    ]
    reached = {
        other.thread for each in candidates for other in waits.chain(each)[1:] if other.thread != each.thread
    }
    starts = [each for each in candidates if each.thread not in reached]
    yield from starts or sorted(candidates, key=lambda each: _is_accepted(waits, each))[:1]


def _is_idle_server(waits: WaitsAtEnd, wait: PendingWait) -> bool:
    """Return whether a server waits for requests of any client, and nothing is unread."""
    return wait.unread == 0 and any(map(waits.serves, wait.sockets))


def call_text(call: Call) -> str:
    """Return a blocked call, as a program has it: `recv(4, 100, MSG_WAITALL)`."""
    name = _NAMES.get(call.name, call.name)
    if name in ("wait", "futex", "sleep", "poll", "select"):
        return f"{name}()"
    parts = [] if call.descriptor is None else [str(call.descriptor)]
    if name == "connect" and call.address is not None:
        parts.append(str(call.address))
    if call.requested is not None:
        parts.append(f"{call.requested:,} bytes" if call.requested > 9999 else str(call.requested))
    parts += sorted(each for each in call.flags if each in ("MSG_WAITALL", "MSG_PEEK"))
    return f"{name}({', '.join(parts)})"


def count(number: int) -> str:
    """Return a number of bytes as text."""
    return "1 byte" if number == 1 else f"{number:,} bytes"


def cycle_sentence(waits: WaitsAtEnd, cycle: tuple[PendingWait, ...]) -> str:
    """Describe a deadlock: the calls, since when, what is in flight, and what would end it."""
    since = formatting.duration(max(0, waits.now - max(each.since for each in cycle)))
    if len(cycle) == 1:
        (wait,) = cycle
        return (
            f"Deadlock, for {since}: {name_of(waits.trace_index, wait.process)} waits in "
            f"{call_text(wait.call)} for itself: it holds both ends of the connection."
        )
    if len(cycle) == 2 and waits.shares_connection(*cycle):
        first, second = sorted(cycle, key=lambda each: _is_accepted(waits, each))
        where = _connection(waits, first)
        limits = [each.call.timeout_ns for each in cycle if each.call.timeout_ns is not None]
        opening = f"Deadlock: each end waits for the other, for {since}."
        if limits:
            limit = formatting.duration(min(limits))
            opening = f"Each end waits for the other, for {since}, until a time limit of {limit}."
        text = (
            f"{opening} {capitalized(_blocked(waits, first))}, and "
            f"{_blocked(waits, second)}, on the same connection{where}."
        )
        return f"{text} {_in_flight(waits, first, second)} {_what_ends(waits, first, second)}"
    names = ", ".join(
        f"{_blocked(waits, each)} for {name_of(waits.trace_index, following.process)}"
        for each, following in zip(cycle, (*cycle[1:], cycle[0]), strict=True)
    )
    return f"Deadlock: {len(cycle)} threads wait for each other, for {since}: {names}."


def _is_accepted(waits: WaitsAtEnd, wait: PendingWait) -> bool:
    sockets = waits.trace_index.trace.sockets
    return any(sockets[each].accepted_from is not None for each in wait.sockets)


def _connection(waits: WaitsAtEnd, wait: PendingWait) -> str:
    socket = waits.trace_index.trace.sockets[wait.sockets[0]]
    if socket.family == "unix" or socket.local is None or socket.peer is None:
        return ""
    return f" ({socket.local} to {socket.peer})"


def _blocked(waits: WaitsAtEnd, wait: PendingWait) -> str:
    verb = "is blocked in" if wait.need == "space" else "waits in"
    return f"{name_of(waits.trace_index, wait.process)} {verb} {call_text(wait.call)}"


def _in_flight(waits: WaitsAtEnd, first: PendingWait, second: PendingWait) -> str:
    """Say how many bytes each end has sent that the other one has not read, and how many it has."""
    parts = []
    for sender, reader in ((first, second), (second, first)):
        socket = _shared_socket(waits, sender, reader)
        if socket is None:
            continue
        peer = waits.trace_index.peer_of(socket)
        sent = waits.sent(socket)
        name, other = name_of(waits.trace_index, sender.process), name_of(waits.trace_index, reader.process)
        pending = waits.unsent(socket)
        requested = reader.call.requested or 0
        if pending and "MSG_WAITALL" in reader.call.flags and pending < requested:
            parts.append(
                f"{name} has sent {count(pending)} of the {count(requested)} that {other} waits for."
            )
        elif pending and reader.need == "data":
            parts.append(f"{count(pending)} that {name} sent have not been read by {other}.")
        elif pending:
            whole = f" of the {sender.call.requested:,}" if (sender.call.requested or 0) > pending else ""
            parts.append(
                f"{pending:,}{whole} bytes that {name} sends have reached {other}, which has not read them."
            )
        elif sent and peer is not None:
            parts.append(
                f"{other} has read all {count(sent)} that {name} sent{_last_sent(waits, socket, sent)}."
            )
        else:
            # A process that was attached to has no command.
            began = "" if waits.trace_index.process(sender.process).command else " since the trace began"
            parts.append(f"{name} has sent nothing{began}.")
    for ending in (".", " since the trace began."):
        if len(parts) == 2 and all(each.endswith(f" has sent nothing{ending}") for each in parts):
            return f"Neither has sent anything{ending}"
    return " ".join(map(capitalized, parts))


def _last_sent(waits: WaitsAtEnd, socket: int, total: int) -> str:
    """Show what a socket sent last, as the end of a sentence about all `total` bytes that it sent."""
    sends = waits.trace_index.sends(waits.trace_index.trace.sockets[socket])
    if not sends or not sends[-1].data:
        return ""
    shown = formatting.quoted(sends[-1].data, sends[-1].size, _SHOWN)
    return f", {shown}" if sends[-1].size == total else f", {shown} last"


def _shared_socket(waits: WaitsAtEnd, wait: PendingWait, other: PendingWait) -> int | None:
    return next((each for each in wait.sockets if waits.trace_index.peer_of(each) in other.sockets), None)


def _what_ends(waits: WaitsAtEnd, first: PendingWait, second: PendingWait) -> str:
    names = name_of(waits.trace_index, first.process), name_of(waits.trace_index, second.process)
    if first.need == second.need == "space":
        return f"It ends when {names[0]} or {names[1]} reads."
    if first.need == second.need == "data":
        sent = waits.sent(_shared_socket(waits, first, second) or first.sockets[0])
        more = "sends the rest" if sent else "sends"
        return (
            f"It ends when {names[0]} {more} or ends its direction with shutdown(SHUT_WR), or when "
            f"{names[1]} sends without waiting for more."
        )
    return f"It ends when {names[0]} or {names[1]} leaves its call, or closes the connection."


def chain_sentence(waits: WaitsAtEnd, wait: PendingWait) -> str:
    """Describe a wait, and what those wait for that could end it."""
    chain = waits.chain(wait)
    since = formatting.duration(max(0, waits.now - wait.since))
    text = f"{capitalized(_blocked(waits, wait))}{_limit(wait)} {_purpose(waits, wait)}, for {since}."
    text += _asked(waits, wait)
    if wait.unaccepted:
        text += " The connection is in the accept queue: it has not been accepted."
    text += "".join(_lost(waits, wait)) + "".join(_copies(waits, wait))
    for before, each in itertools.pairwise(chain):
        text += f" {capitalized(_continuation(waits, before, each))}"
    if len(chain) > 1 and wait.need == chain[1].need == "data" and waits.shares_connection(wait, chain[1]):
        text += f" {_in_flight(waits, wait, chain[1])}"
    if chain[-1].need in ("data", "space", "peer") and not waits.next_waits(chain[-1]):
        text += _no_waiting_peer(waits, chain[-1])
    return text


def _asked(waits: WaitsAtEnd, wait: PendingWait) -> str:
    """Show what the waiting end sent last, to which the answer may be due, and when."""
    sends = [
        call
        for each in wait.sockets
        for call in waits.trace_index.sends(waits.trace_index.trace.sockets[each])
        if call.data
    ]
    if wait.need != "data" or not sends or any(map(waits.serves, wait.sockets)):
        return ""
    last = max(sends, key=lambda call: call.at)
    ago = formatting.duration(max(0, waits.now - last.at))
    return f" It sent {formatting.quoted(last.data, last.size, _SHOWN)} {ago} ago."


def _limit(wait: PendingWait) -> str:
    limit = wait.call.timeout_ns
    return f" (time limit {formatting.duration(limit)})" if limit else ""


def _purpose(waits: WaitsAtEnd, wait: PendingWait) -> str:
    names = " and ".join(name_of(waits.trace_index, each) for each in wait.enders[:3])
    match wait.need:
        case "data":
            return f"for data from {names}" if names else f"for data from {_far_end(waits, wait)}"
        case "space":
            return f"until {names or _far_end(waits, wait)} reads"
        case "peer":
            return f"for an answer from {names or _far_end(waits, wait)}"
        case "child":
            return f"for the child {names}" if names else "for a child"
        case _:
            return f"for {wait.need}"


def _far_end(waits: WaitsAtEnd, wait: PendingWait) -> str:
    sockets: list[Socket] = [waits.trace_index.trace.sockets[each] for each in wait.sockets]
    peers = [str(target) for each in sockets if (target := waits.target_of(each)) is not None]
    return peers[0] if peers else "the other end"


def _continuation(waits: WaitsAtEnd, before: PendingWait, wait: PendingWait) -> str:
    """Describe the wait of the process that could end the wait before it."""
    name = name_of(waits.trace_index, wait.process)
    unread = sum(
        waits.unread(peer)
        for each in before.sockets
        if (peer := waits.trace_index.peer_of(each)) is not None
        and wait.process in waits.trace_index.holders_at(peer, waits.now)
    )
    ignored = f", and has not read the {count(unread)} that arrived" if unread else ""
    match wait.need:
        case "data" if all(map(waits.serves, wait.sockets)):
            return f"{name} waits in {call_text(wait.call)} for a request of any client{ignored}."
        case "data" | "space" | "peer" if waits.shares_connection(before, wait):
            verb = "is blocked in" if wait.need == "space" else "waits in"
            others = "" if len(wait.sockets) < 2 else f", for one of {len(wait.sockets)} sockets"
            return (
                f"{name} {verb} {call_text(wait.call)} on the same connection{others}{_limit(wait)}{ignored}."
            )
        case "data" | "space" | "peer":
            return f"{_blocked(waits, wait)} on another connection, {_purpose(waits, wait)}{ignored}."
        case _:
            return f"{_state(waits, wait)}{ignored}."


def _state(waits: WaitsAtEnd, wait: PendingWait) -> str:
    """Describe a wait for something else than a peer."""
    name = name_of(waits.trace_index, wait.process)
    since = formatting.duration(max(0, waits.now - wait.since))
    match wait.need:
        case "time":
            limit = wait.call.timeout_ns
            length = f" for {formatting.duration(limit)}" if limit else ""
            return f"{name} sleeps{length} (for {since} so far)"
        case "input":
            descriptors = wait.call.descriptors_waited or (wait.call.descriptor or 0,)
            source = "standard input" if descriptors == (0,) else f"descriptor {descriptors[0]}"
            return f"{name} waits for input from {source}"
        case "connection":
            return f"{name} waits in {call_text(wait.call)} for a new connection"
        case "lock":
            return f"{name} waits for a lock of another thread (futex)"
        case _:
            return f"{_blocked(waits, wait)} {_purpose(waits, wait)}"


def _lost(waits: WaitsAtEnd, wait: PendingWait) -> Iterator[str]:
    for each in wait.sockets:
        attempts = [packet for packet in waits.trace_index.packets_from[each] if "SYN" in packet.flags]
        if wait.need == "peer" and attempts and not waits.trace_index.packets_to[each]:
            times = "1 SYN was" if len(attempts) == 1 else f"{len(attempts)} SYNs were"
            lost = f": {attempts[-1].lost} dropped the last one" if attempts[-1].lost else ""
            yield f" {times} sent, and no answer has arrived{lost}."
        packets = waits.lost(each)
        if packets:
            size = sum({each.offset: each.size for each in packets}.values())
            yield f" {count(size)} were sent to it and lost on the way ({packets[-1].lost})."


def _copies(waits: WaitsAtEnd, wait: PendingWait) -> Iterator[str]:
    """Name the processes that only hold a copy of the other end, so that no EOF arrives."""
    for each in wait.sockets:
        peer = waits.trace_index.peer_of(each)
        if peer is None or wait.need != "data" or waits.users_of(peer) == []:
            continue
        holders = waits.trace_index.holders_at(peer, waits.now)
        idle = list(waits.closing_holders(peer))
        if idle and len(idle) == len(holders):
            names = " and ".join(
                f"{name_of(waits.trace_index, number)} (descriptor {min(holders[number])})" for number in idle
            )
            verb = "holds" if len(idle) == 1 else "hold"
            yield f" {capitalized(names)} still {verb} the other end without using it, so no EOF arrives."


def _no_waiting_peer(waits: WaitsAtEnd, wait: PendingWait) -> str:
    """Say why no blocked call of another process follows."""
    if wait.sockets and all(map(waits.serves, wait.sockets)):
        return ""
    if not wait.enders:
        ends = [waits.trace_index.peer_of(each) for each in wait.sockets]
        if any(each is not None for each in ends):
            return " No process holds the other end any more."
        if wait.need == "peer":
            return " No traced program listens there."
        if all(waits.trace_index.trace.sockets[each].kind == "datagram" for each in wait.sockets):
            return " No traced program has a socket there."
        return " The program at the other end is not traced."
    if wait.unaccepted and wait.process in wait.enders and not wait.ender_threads:
        return (
            " That connection is in its own accept queue, which no other thread empties: it waits for itself."
        )
    names = " and ".join(name_of(waits.trace_index, each) for each in wait.enders[:3])
    return f" {capitalized(names)} runs, and is in no call that blocks."
