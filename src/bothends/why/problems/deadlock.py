"""Deadlocks: threads that wait for each other through connections, so that none of them can continue.

1. Both ends wait for data: nothing is in flight, and every thread that could send is stuck as well.
2. Both ends wait to send: the receive buffers of both ends are full, and neither end reads. That needs no
   knowledge of other threads, because a thread that reads would have made space.
3. Longer circles: each process waits for the next one.

A timeout at either end makes it a mutual wait, which ends by itself. A thread that could still act, or
data on its way, makes it neither: see `wait_graph`. One case is an inference: a server whose other threads
wait in accept(2) only, and a client that was never sent a byte.
"""

from __future__ import annotations

from collections.abc import Iterator

from bothends.osutil.blocked_calls import Need
from bothends.socket_table import SocketEntry
from bothends.why import phrases
from bothends.why.model import ObservedThread
from bothends.why.problems.problem import Problem, concerns
from bothends.why.wait_graph import WaitGraph, find_cycles

KIND = "deadlock"
LIMITED_KIND = "mutual wait"
_UNFLUSHED = "Data written to a buffered file (makefile(), FILE *) is sent by flush()."
_STALLED_SECONDS = 1.0  # both directions at a standstill: longer than a scheduling delay of a reader


def find(graph: WaitGraph) -> Iterator[Problem]:
    """Yield each pair of ends that wait for each other, then each longer circle.

    Those with a time limit are information: a program that waits with a timeout may have nothing else to do.
    """
    explained: set[int] = set()
    for entry, other in connection_pairs(graph):
        problem = _both_sending(graph, entry, other) or _both_receiving(graph, entry, other)
        if problem is not None:
            explained |= {thread.tid for each in (entry, other) for thread in graph.waiting(each)}
            yield problem
            continue
        problem = _both_sending(graph, entry, other, limited=True)
        problem = problem or _both_receiving(graph, entry, other, limited=True)
        if problem is not None:
            yield problem
    yield from _circles(graph, explained)


def connection_pairs(graph: WaitGraph) -> Iterator[tuple[SocketEntry, SocketEntry]]:
    """Yield each connection with both ends on this machine, and with a thread that waits at each."""
    seen: set[int] = set()
    for inode in {wait.inode for thread in graph.snapshot.threads() for wait, _ in graph.waits_for(thread)}:
        entry = graph.by_inode[inode]
        if inode in seen or entry.type == "dgram" or not graph.waiting(entry):
            continue
        other = graph.peer(entry)
        if other is not None and other.inode and graph.waiting(other):
            seen |= {inode, other.inode}
            # The client first: the end whose port is not that of a listener.
            yield (other, entry) if graph.listener(entry) else (entry, other)


def since(threads: list[ObservedThread]) -> float | None:
    """Return for how long all threads have been blocked."""
    known = [thread.idle for thread in threads if thread.idle is not None]
    return min(known) if known else None


def in_flight(sender: SocketEntry, receiver: SocketEntry) -> int:
    """Return the bytes that one end has sent and the other end's program has not read."""
    if sender.family == "unix":
        return receiver.recv_queue or 0  # send_queue counts the same bytes, with overhead
    return (sender.send_queue or 0) + (receiver.recv_queue or 0)


def _thread(graph: WaitGraph, entry: SocketEntry, need: Need) -> ObservedThread | None:
    """Return a settled thread that waits for a socket, with this need; one in a direct call first."""
    found = [
        thread
        for thread in graph.waiting(entry)
        if thread.is_settled
        and thread.call is not None
        and any(wait.inode == entry.inode and wait.need is need for wait in thread.call.waits)
    ]
    return min(found, key=lambda thread: thread.call is None or not thread.call.direct, default=None)


def _both_sending(
    graph: WaitGraph, entry: SocketEntry, other: SocketEntry, *, limited: bool = False
) -> Problem | None:
    one, two = _thread(graph, entry, Need.SPACE), _thread(graph, other, Need.SPACE)
    if one is None or two is None or not entry.recv_queue or not other.recv_queue:
        return None
    if not entry.send_queue or not other.send_queue or bool(_limits(graph, one, two)) is not limited:
        return None
    seconds = since([one, two])
    for end in (entry, other):
        if end.tcp is not None:
            quiet = end.tcp.last_data_sent_ms / 1000
            seconds = quiet if seconds is None else min(seconds, quiet)
    is_stuck = {one.tid, two.tid} <= graph.stuck(limits_wake=not limited)
    if not is_stuck and (seconds is None or seconds < _STALLED_SECONDS):
        return None
    there, back = in_flight(entry, other), in_flight(other, entry)
    first, second = phrases.thread_name(graph, one), phrases.thread_name(graph, two)
    amount = (
        f"{phrases.size(there)} wait in each direction"
        if phrases.size(there) == phrases.size(back)
        else f"{phrases.size(there)} wait from the first to the second and {phrases.size(back)} back"
    )
    return Problem(
        LIMITED_KIND if limited else KIND,
        f"Each end waits for the other: {first} is blocked in {phrases.call(one)} and {second} in"
        f" {phrases.call(two)} on the same connection, both send buffers full, {_since(seconds)}."
        f" {amount}, and neither end reads.{_limits(graph, one, two)}",
        seen=_evidence(graph, entry, other, one, two),
        inferred=_unknown_limits(graph, one, two),
        remedy="One of them must read while it sends: in another thread, or with poll() and non-blocking"
        " calls.",
        is_wrong=not limited,
        seconds=seconds,
        **concerns([entry, other]),
    )


def _limits(graph: WaitGraph, *threads: ObservedThread) -> str:
    """Return when the calls end that have a time limit: a sentence, or "" if none has."""
    found = [
        f"{phrases.call(thread)} of {phrases.thread_name(graph, thread)} ends after"
        f" {phrases.duration(thread.call.timeout)} at most ({thread.call.option or 'its timeout'})"
        for thread in threads
        if thread.call is not None and thread.call.timeout is not None
    ]
    return f" {'; '.join(found)}." if found else ""


def _unknown_limits(graph: WaitGraph, *threads: ObservedThread) -> str:
    unknown = [thread for thread in threads if thread.call is not None and thread.call.option is None]
    if not unknown:
        return ""
    names = " and ".join(phrases.thread_name(graph, thread) for thread in unknown)
    return f"that no SO_RCVTIMEO or SO_SNDTIMEO ends the wait: the options of {names} are not readable"


def _both_receiving(
    graph: WaitGraph, entry: SocketEntry, other: SocketEntry, *, limited: bool = False
) -> Problem | None:
    one, two = _thread(graph, entry, Need.DATA), _thread(graph, other, Need.DATA)
    if one is None or two is None or one.tid == two.tid or bool(_limits(graph, one, two)) is not limited:
        return None
    inferred = _unknown_limits(graph, one, two)
    if not {one.tid, two.tid} <= graph.stuck(limits_wake=not limited):
        never_answered = entry.tcp is not None and entry.tcp.bytes_received == 0 and entry.tcp.bytes_acked
        if not never_answered or not {one.tid, two.tid} <= graph.stuck(
            accept_wakes=False, limits_wake=not limited
        ):
            return None
        inferred = (
            f"that the thread of {phrases.names(graph.owners(other))} in accept() does not send on this"
            " connection: a request was sent, and no byte has ever come back"
        )
    seconds = since([one, two])
    unread = (entry.recv_queue or 0), (other.recv_queue or 0)
    if not any(unread):
        queues, flight = "both queues empty, ", " Nothing is in flight."
    else:
        ends = [
            f"{phrases.size(number)} {'is' if number == 1 else 'are'} unread at"
            f" {phrases.thread_name(graph, thread)}, which"
            f" {'is notified only of new data (EPOLLET)' if _is_edge(thread, end) else 'waits for more'}"
            for number, thread, end in zip(unread, (one, two), (entry, other), strict=True)
            if number
        ]
        queues, flight = "", f" {'; '.join(ends)}."
    for thread in (one, two):
        if thread.call is not None and thread.call.whole:
            flight += (
                f" {phrases.thread_name(graph, thread)} waits for all {thread.call.whole:,} bytes of its"
                " buffer (MSG_WAITALL), and fewer have arrived."
            )
    first, second = phrases.thread_name(graph, one), phrases.thread_name(graph, two)
    return Problem(
        LIMITED_KIND if limited else KIND,
        f"Each end waits for the other: {first} is blocked in {phrases.call(one)} and {second} in"
        f" {phrases.call(two)} on the same connection, {queues}{_since(seconds)}.{flight}"
        f"{_limits(graph, one, two)}",
        is_wrong=not limited,
        seen=_evidence(graph, entry, other, one, two),
        inferred=inferred,
        remedy=_remedy(graph, (entry, one), (other, two)),
        seconds=seconds,
        **concerns([entry, other]),
    )


def _remedy(graph: WaitGraph, *ends: tuple[SocketEntry, ObservedThread]) -> str:
    """Return what the programs should change, as far as the bytes of each direction tell it."""
    for end, thread in ends:
        name = phrases.thread_name(graph, thread)
        if end.recv_queue and _is_edge(thread, end):
            return f"With EPOLLET, {name} must call recv() until it fails with EAGAIN."
        if end.recv_queue and thread.call is not None and thread.call.whole:
            return (
                f"{name} must ask for no more than the other end sends, or call recv() without MSG_WAITALL."
            )
    (entry, one), (other, two) = ends
    first, second = phrases.thread_name(graph, one), phrases.thread_name(graph, two)
    general = "One of them must send, or close its direction."
    if any(end.recv_queue for end, _ in ends):
        return "One of them must send the rest, read what has arrived, or close its direction."
    if entry.tcp is None or other.tcp is None or None in (entry.tcp.bytes_received, other.tcp.bytes_received):
        return general
    there, back = other.tcp.bytes_received or 0, entry.tcp.bytes_received or 0
    if not there and not back:
        return f"Neither has sent a byte yet, so one of them must send first. {_UNFLUSHED}"
    if there and back:
        if entry.tcp.last_data_sent_ms == entry.tcp.last_data_received_ms:
            return general
        is_forth = entry.tcp.last_data_sent_ms < entry.tcp.last_data_received_ms
    else:
        is_forth = bool(there)
    sender, reader, number = (first, second, there) if is_forth else (second, first, back)
    return (
        f"{sender} sent last, {phrases.size(number)} in all, and {reader} has read them and waits for more."
        f" {sender} must send the rest of its message (the newline, or as many bytes as {reader} expects) or"
        f" call shutdown(SHUT_WR) at its end; or {reader} must answer without more. {_UNFLUSHED}"
    )


def _is_edge(thread: ObservedThread, entry: SocketEntry) -> bool:
    return thread.call is not None and any(
        wait.inode == entry.inode and wait.edge for wait in thread.call.waits
    )


def _circles(graph: WaitGraph, explained: set[int]) -> Iterator[Problem]:
    """Yield the circles of stuck threads that pass through more than one connection."""
    stuck = graph.stuck()
    threads = {thread.tid: thread for thread in graph.snapshot.threads() if thread.tid in stuck}
    edges: dict[int, set[int]] = {tid: set() for tid in threads}
    through: dict[tuple[int, int], SocketEntry] = {}
    for tid, thread in threads.items():
        for _, entry in graph.waits_for(thread):
            other = graph.peer(entry)
            for process in graph.owners(other) if other else ():
                if process.pid != thread.pid:
                    for each in process.threads:
                        if each.tid in stuck:
                            edges[tid].add(each.tid)
                            through[tid, each.tid] = entry
    for component in find_cycles(edges):
        if explained & set(component):
            continue
        ring = _ring(edges, component)
        pairs = list(zip(ring, [*ring[1:], ring[0]], strict=True))
        if len(ring) < 2 or len({threads[tid].pid for tid in ring}) < 2:
            continue
        links = [
            f"{phrases.thread_name(graph, threads[tid])} is blocked in {phrases.call(threads[tid])} and waits"
            f" for {phrases.thread_name(graph, threads[after])}"
            for tid, after in pairs
        ]
        seconds = since([threads[tid] for tid in ring])
        entries = [through[pair] for pair in pairs]
        peers = [other for entry in entries if (other := graph.peer(entry))]
        yield Problem(
            KIND,
            f"{len(ring)} threads wait for each other in a circle, {_since(seconds)}: {'; '.join(links)}.",
            seen="; ".join(
                f"{phrases.connection(entry)}: {phrases.size(entry.recv_queue or 0)} unread,"
                f" {phrases.size(entry.send_queue or 0)} unsent"
                for entry in entries
            ),
            remedy="One of them must act without waiting for the next.",
            seconds=seconds,
            **concerns([*entries, *peers]),
        )


def _ring(edges: dict[int, set[int]], component: list[int]) -> list[int]:
    """Return one circle in a strongly connected component: a shortest one through its first member."""
    members = set(component)
    start = min(component)
    came_from: dict[int, int] = {}
    level = [start]
    while level:
        following: list[int] = []
        for tid in level:
            for target in sorted(edges[tid] & members):
                if target == start:
                    ring = [tid]
                    while ring[-1] != start:
                        ring.append(came_from[ring[-1]])
                    return ring[::-1]
                if target not in came_from:
                    came_from[target] = tid
                    following.append(target)
        level = following
    return []


def _since(seconds: float | None) -> str:
    return f"for at least {phrases.duration(seconds)}" if seconds is not None else "for an unknown time"


def _evidence(
    graph: WaitGraph, entry: SocketEntry, other: SocketEntry, one: ObservedThread, two: ObservedThread
) -> str:
    words = [phrases.connection(entry)]
    for end, thread in ((entry, one), (other, two)):
        words.append(
            f"{phrases.thread_name(graph, thread)} in {phrases.call(thread)}{phrases.line(thread)}:"
            f" {end.recv_queue or 0:,} bytes unread, {end.send_queue or 0:,} not acknowledged"
        )
    return "; ".join(words)
