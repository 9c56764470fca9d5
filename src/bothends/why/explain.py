"""Describe what one process, port or endpoint waits for, and follow each wait to the process that can end it.

Pure. A description states what was read; it does not judge. The problems do that.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from bothends.endpoints import endpoints_from_args
from bothends.errors import EndpointError
from bothends.socket_table import SocketEntry
from bothends.why import phrases
from bothends.why.model import ObservedProcess, ObservedThread
from bothends.why.wait_graph import WaitGraph, is_loopback, plain_host

_MAX_DEPTH = 6  # ends of a chain of waits that are followed
_MAX_PID_DIGITS = 10
_MAX_FOLLOWED = 2  # descriptors of one call: an event loop waits for all its clients
_MAX_ITEMS = 10  # threads or connections of one kind that are described


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be explained: processes, or the sockets with a port, an address or a path.

    `host` is "" for any. `protocol` is "" for any, or "tcp", "udp", ... `path` is that of a UNIX socket.
    """

    text: str
    pids: tuple[int, ...] = ()
    protocol: str = ""
    host: str = ""
    port: int = 0
    path: str = ""

    def selects(self, entry: SocketEntry) -> bool:
        """Whether a socket has the address at either end."""
        if self.path:
            return self.path in (entry.local.host, entry.peer.host) and entry.family == "unix"
        if not self.port or (self.protocol and entry.protocol != self.protocol):
            return False
        return self._selects_end(entry.local.host, entry.local.port) or self._selects_end(
            entry.peer.host, entry.peer.port
        )

    def _selects_end(self, host: str, port: int) -> bool:
        any_host = host in ("0.0.0.0", "::")
        return port == self.port and (not self.host or any_host or plain_host(host) == self.host)


def parse_subject(text: str) -> Subject:
    """Parse a PID, `:PORT` (of any protocol), or an endpoint such as `127.0.0.1:12000` or `unix:/run/a.sock`.

    Raises EndpointError for a name, since names are not resolved, and for an endpoint without an address.
    """
    if text.isdecimal() and len(text) < _MAX_PID_DIGITS:
        return Subject(text, pids=(int(text),))
    (endpoint,) = endpoints_from_args([text])
    if endpoint.path:
        return Subject(text, path=endpoint.path)
    host = "127.0.0.1" if endpoint.host == "localhost" else endpoint.host.partition("%")[0]
    if not endpoint.port:
        raise EndpointError(text, "it has no port", "give a PID, :PORT or an endpoint with a port or a path")
    if host:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            hint = "names are not resolved: give the address, or :PORT"
            raise EndpointError(text, "its host is a name", hint) from None
    any_protocol = text.startswith(":")
    protocol = "" if any_protocol else {"tls": "tcp"}.get(endpoint.scheme, endpoint.scheme)
    return Subject(text, protocol=protocol, host=plain_host(host), port=endpoint.port)


@dataclass(frozen=True, slots=True)
class Statement:
    """One line of a description. `depth`: how far it is from its subject along the chain of waits."""

    text: str
    depth: int = 0
    certainty: str = "seen"


@dataclass(slots=True)
class _Described:
    """The threads and connections that a description has covered, so that a circle ends."""

    tids: set[int] = field(default_factory=set)
    inodes: set[int] = field(default_factory=set)


def describe(graph: WaitGraph, subject: Subject) -> list[Statement]:
    """Return the description of a subject; empty if there is no such process or socket."""
    if subject.pids:
        processes = [graph.snapshot.processes[pid] for pid in subject.pids if pid in graph.snapshot.processes]
        return [statement for process in processes for statement in _process(graph, process)]
    entries = [entry for entry in graph.snapshot.sockets if subject.selects(entry)]
    return list(_sockets(graph, entries))


def _process(graph: WaitGraph, process: ObservedProcess) -> Iterator[Statement]:
    limit = "" if process.file_limit is None else f" of {process.file_limit:,}"
    files = "" if process.open_files is None else f", {process.open_files:,}{limit} descriptors open"
    yield Statement(f"{process}: {phrases.count(len(process.threads), 'thread')}{files}.")
    yield from _threads(graph, process.threads, depth=0, seen=_Described())
    if any(_is_event_loop(thread) for thread in process.threads):
        yield Statement(
            "One thread waits for several descriptors, as event loops do: which task or callback waits for"
            " which of them (asyncio, Node.js) is not visible from outside."
        )
    if any(thread.call is not None and thread.call.name == "io_uring_enter" for thread in process.threads):
        yield Statement(
            "The requests in an io_uring are not visible from outside, so neither is what it waits for."
        )
    waited_for = {wait.inode for thread in process.threads for wait, _ in graph.waits_for(thread)}
    idle = [
        entry
        for entry in graph.sockets_of(process.pid)
        if entry.inode not in waited_for
        and entry.state != "LISTEN"
        and graph.snapshot.processes[process.pid].is_readable
    ]
    for entry in idle[:_MAX_ITEMS]:
        fds = ", ".join(f"fd {owner.fd}" for owner in entry.owners if owner.pid == process.pid)
        held = f"{phrases.connection(entry)} open ({fds}), {_queues(entry)}"
        yield Statement(f"It holds {held}; none of its threads waits for it.")
    if len(idle) > _MAX_ITEMS:
        yield Statement(
            f"It holds {phrases.count(len(idle) - _MAX_ITEMS, 'more socket')} that no thread waits for."
        )


def _is_event_loop(thread: ObservedThread) -> bool:
    return thread.call is not None and not thread.call.direct and len(thread.call.waits) > 1


def _threads(
    graph: WaitGraph, threads: Iterable[ObservedThread], depth: int, seen: _Described
) -> Iterator[Statement]:
    """Describe threads, those that do the same together, and follow each wait for a connection."""
    groups: dict[str, list[ObservedThread]] = {}
    for thread in threads:
        groups.setdefault(phrases.doing(graph, thread), []).append(thread)
    for activity, members in list(groups.items())[:_MAX_ITEMS]:
        first = members[0]
        if first.tid in seen.tids:
            yield Statement(f"This leads back to {phrases.thread_name(graph, first)}, above.", depth)
            continue
        known = [thread.idle for thread in members if thread.idle is not None and thread.call is not None]
        idle = f", for {phrases.duration(min(known))}" if known and min(known) >= 0.1 else ""
        if len(members) > 1:
            process = graph.snapshot.processes[first.pid]
            yield Statement(f"{process}: each of {len(members)} threads {activity}{idle}.", depth)
        else:
            yield Statement(f"{phrases.thread_name(graph, first)} {activity}{idle}.", depth)
        seen.tids |= {thread.tid for thread in members}
        if depth < _MAX_DEPTH:
            yield from _follow(graph, first, depth + 1, seen)
    if len(groups) > _MAX_ITEMS:
        yield Statement(f"{len(groups) - _MAX_ITEMS} more threads wait for other things.", depth)


def _follow(graph: WaitGraph, thread: ObservedThread, depth: int, seen: _Described) -> Iterator[Statement]:
    """Describe the other end of what a thread waits for, unless it waits for many things."""
    waits = [(wait, entry) for wait, entry in graph.waits_for(thread) if entry.peer.port or entry.peer_inode]
    if thread.call is None or len(thread.call.waits) > _MAX_FOLLOWED:
        return
    for _, entry in waits:
        other = graph.peer(entry)
        if other is None:
            yield Statement(_remote(entry), depth)
            continue
        if not {entry.inode, other.inode} & seen.inodes:
            yield Statement(_both_queues(entry, other), depth)
        seen.inodes |= {entry.inode, other.inode} - {0}
        if graph.is_queued(other):
            listener = graph.listener(other)
            holder = phrases.names(graph.owners(listener)) if listener else "the server"
            yield Statement(
                f"No process has accepted the other end: it is in the accept queue of {holder}.", depth
            )
            other = listener or other
        elif not other.owners:
            yield Statement("The process at the other end is not visible to this user.", depth)
        holders = graph.owners(other)
        if len(holders) > 1:
            yield Statement(
                f"The other end is open in {phrases.names(holders)}: end of file comes when all of them have"
                " closed it.",
                depth,
            )
        yield from _other_end(graph, other, depth, seen)


def _other_end(graph: WaitGraph, other: SocketEntry, depth: int, seen: _Described) -> Iterator[Statement]:
    waiting = graph.waiting(other)
    if waiting:
        yield from _threads(graph, waiting, depth, seen)
        return
    for process in graph.owners(other):
        held = "The other end is held by" if other.state != "LISTEN" else "Its listener is held by"
        activity = phrases.main_activity(graph, process)
        fds = ", ".join(f"fd {owner.fd}" for owner in other.owners if owner.pid == process.pid)
        yield Statement(f"{held} {process} ({fds}), no thread of which waits for it; it {activity}.", depth)
        following = [thread for thread in process.threads if thread.tid not in seen.tids]
        if len(process.threads) == 1 and following and depth < _MAX_DEPTH:
            seen.tids.add(following[0].tid)
            yield from _follow(graph, following[0], depth + 1, seen)


def _queues(entry: SocketEntry) -> str:
    if entry.recv_queue is None:
        return f"state {entry.state}"
    if entry.state == "CLOSE-WAIT":
        # The FIN has a sequence number, so the kernel counts it as a byte.
        unread = f"{phrases.size(max(0, entry.recv_queue - 1))} unread, closed by the other end"
    else:
        unread = f"{phrases.size(entry.recv_queue)} unread"
    return f"{unread}, {phrases.size(entry.send_queue or 0)} not acknowledged"


def _both_queues(entry: SocketEntry, other: SocketEntry) -> str:
    """Return the bytes under way in each direction of a connection with both ends here."""
    if entry.recv_queue is None or other.recv_queue is None:
        return f"{phrases.connection(entry)}: the queues are not known."
    unsent = entry.send_queue or 0 if entry.family != "unix" else 0
    other_unsent = other.send_queue or 0 if other.family != "unix" else 0
    towards, back = unsent + other.recv_queue, other_unsent + entry.recv_queue
    if not towards and not back:
        return f"{phrases.connection(entry)}: nothing is in flight in either direction."
    return (
        f"{phrases.connection(entry)}: {phrases.size(towards)} sent and not read by the other end,"
        f" {phrases.size(back)} in the other direction."
    )


def _remote(entry: SocketEntry) -> str:
    """Return what this end shows of a peer that is on another machine, or not visible."""
    peer = phrases.address(entry.peer)
    if entry.family == "unix":
        return "The other end is closed, or in a place that is not visible."
    words = [f"The other end, {peer}, is on another machine"]
    if is_loopback(entry.peer.host):
        words = [f"The other end, {peer}, has no socket any more"]
    tcp = entry.tcp
    if tcp is None:
        return f"{words[0]}."
    if tcp.bytes_received == 0:
        words.append("it has sent nothing yet")
    else:
        words.append(f"its last data came {phrases.duration(tcp.last_data_received_ms / 1000)} ago")
    words.append(f"its last acknowledgement {phrases.duration(tcp.last_ack_received_ms / 1000)} ago")
    if entry.send_queue:
        words.append(f"{phrases.size(entry.send_queue)} are not acknowledged")
        if entry.timer and entry.timer.kind == "probe":
            words.append("its receive window is zero, so its program does not read")
        elif tcp.retransmits:
            words.append(f"retransmitted {tcp.retransmits} times")
    else:
        words.append("it has acknowledged all that was sent")
    if entry.recv_queue:
        words.append(f"{phrases.size(entry.recv_queue)} are unread here")
    return f"{words[0]}: {', '.join(words[1:])}."


def _sockets(graph: WaitGraph, entries: list[SocketEntry]) -> Iterator[Statement]:
    listeners = [entry for entry in entries if entry.state == "LISTEN" or not _has_peer(entry)]
    for entry in listeners[:_MAX_ITEMS]:
        yield from _listener(graph, entry)
    described: set[int] = set()
    connections = [entry for entry in entries if entry not in listeners and entry.inode]
    shown = 0
    for entry in connections:
        if entry.inode in described:
            continue
        if shown == _MAX_ITEMS:
            yield Statement(f"{len(connections) - len(described):,} more sockets have this address.")
            break
        shown += 1
        other = graph.peer(entry)
        described |= {entry.inode, *([other.inode] if other else [])}
        yield Statement(_both_queues(entry, other) if other else _remote(entry))
        for end in (entry, other):
            if end is None:
                continue
            waiting = graph.waiting(end)
            for thread in waiting[:2]:
                yield Statement(f"{phrases.thread_name(graph, thread)} {phrases.doing(graph, thread)}.", 1)
            if not waiting and graph.is_queued(end):
                yield Statement("One end is in the accept queue: no process has accepted it.", 1)
            elif not waiting:
                activity = "".join(
                    f"; {process} {phrases.main_activity(graph, process)}"
                    for process in graph.owners(end)[:2]
                )
                yield Statement(f"{phrases.owner(graph, end)}: no thread waits for it{activity}.", 1)


def _has_peer(entry: SocketEntry) -> bool:
    return bool(entry.peer.port or entry.peer_inode)


def _listener(graph: WaitGraph, entry: SocketEntry) -> Iterator[Statement]:
    owner = phrases.owner(graph, entry)
    if entry.type == "dgram":
        drops = f", {entry.memory.drops:,} datagrams dropped" if entry.memory else ""
        yield Statement(f"{owner} receives on {phrases.connection(entry)}: {_queues(entry)}{drops}.")
    elif entry.state == "LISTEN":
        queue = f"{entry.recv_queue or 0:,} in the accept queue" if entry.recv_queue is not None else ""
        limit = f", which holds {entry.send_queue + 1:,}" if entry.send_queue else ""
        yield Statement(f"{owner} listens on {phrases.connection(entry)}: {queue}{limit}.")
    else:
        yield Statement(f"{owner} has {phrases.connection(entry)}, {entry.state}.")
    waiting = graph.waiting(entry)
    for thread in waiting[:3]:
        yield Statement(f"{phrases.thread_name(graph, thread)} {phrases.doing(graph, thread)}.", 1)
    for process in graph.owners(entry)[:3] if not waiting else ():
        yield Statement(f"No thread waits for it; {process} {phrases.main_activity(graph, process)}.", 1)
