"""The calls that are blocked at the end of a trace, and the threads that could end each wait. Pure.

    recv, read        data, or EOF      the threads that use the other end of the connection
    send, write       space             the same: they must read
    accept            a connection      any client
    connect           the peer          the process that listens there
    wait4, waitid     a child           the child process
    futex             a lock            the other threads of the process
    sleep             time              nothing else
    read from 0       input             the user, or the writer of the pipe

1. A wait is stuck if every thread that could end it is blocked in a wait that is stuck itself. It is not, if
   it has a time limit, if a process that is not traced could end it, or if it waits for a listener, a
   keyboard or a pipe as well.
2. The threads that could end a wait are those that have sent or received at the other end, or that wait for
   it. The thread that accepted a connection and gave it to another one is not among them.
3. A process may hold a socket without using it: a copy after fork(). It can end a wait for EOF only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, TypeAlias

from bothends.trace.capture.calls import ACCEPTING, REAPING, RECEIVING, SENDING, SLEEPING, WAITING
from bothends.trace.findings.base import TraceIndex, listens_at
from bothends.trace.model import Call, Packet, Socket, SocketAddress

Need: TypeAlias = Literal["data", "space", "connection", "peer", "child", "input", "time", "lock", "other"]

_USING: Final = SENDING | RECEIVING | {"connect", "shutdown"}
_MUTUAL: Final = frozenset({"data", "space", "peer", "child", "lock"})


@dataclass(frozen=True, slots=True, eq=False)
class PendingWait:
    """A blocked call, and what it waits for.

    `sockets` are those that it waits for. `since` is when it started, in nanoseconds. `unread` are bytes that
    have arrived at its sockets and were not read, `unsent` are bytes that its sockets were given and the
    peers have not read. `enders` are the processes that could end it, `ender_threads` their threads.
    `unaccepted`: its connection is in the accept queue of a listener. `remote`: a process that is not traced
    could end it.
    """

    call: Call
    process: int
    need: Need
    sockets: tuple[int, ...] = ()
    since: int = 0
    unread: int = 0
    unsent: int = 0
    enders: tuple[int, ...] = ()
    ender_threads: tuple[int, ...] = ()
    unaccepted: bool = False
    remote: bool = False

    @property
    def thread(self) -> int:
        """The thread that is blocked."""
        return self.call.thread

    @property
    def may_end_otherwise(self) -> bool:
        """Whether something beside `enders` may end it: a time limit, a user, a process not traced."""
        return self.remote or self.call.timeout_ns is not None or bool(self.call.descriptors_waited)


class WaitsAtEnd:
    """The waits at the end of a trace, or at a time `now` of a trace that goes on."""

    def __init__(self, trace_index: TraceIndex, now: int | None = None) -> None:
        self.trace_index = trace_index
        self.now = trace_index.end if now is None else now
        self._trace = trace_index.trace
        self._threads: dict[int, int] = {}  # thread -> process
        self._users: dict[int, set[int]] = defaultdict(set)  # socket -> threads that have used it
        last: dict[int, Call] = {}
        for call in trace_index.calls:
            self._threads[call.thread] = call.process
            if call.socket is not None and call.name in _USING:
                self._users[call.socket].add(call.thread)
            if call.thread not in last or call.at >= last[call.thread].at:
                last[call.thread] = call
        pending = [call for call in last.values() if call.until is None and call.result is None]
        pending += [
            call for call in self._trace.blocked if call.thread not in {each.thread for each in pending}
        ]
        for call in pending:
            self._threads[call.thread] = call.process
            for socket in call.sockets:
                self._users[socket].add(call.thread)
        self._pending_threads = {call.thread for call in pending}
        self.waits: list[PendingWait] = [
            wait
            for call in pending
            if trace_index.ended_at(call.process) is None
            for wait in [self._wait(call)]
            if wait is not None
        ]
        self.by_thread = {wait.thread: wait for wait in self.waits}

    # Bytes ----------------------------------------------------------------------------------------

    def sent(self, socket: int) -> int:
        """Return how many bytes a socket was given, as far as calls and packets show."""
        by_calls = sum(call.size for call in self.trace_index.sends(self._trace.sockets[socket]))
        return max(by_calls, self._packet_end(self.trace_index.packets_from[socket]))

    def received(self, socket: int) -> int:
        """Return how many bytes were read from a socket."""
        return sum(call.size for call in self.trace_index.receives(self._trace.sockets[socket]))

    def arrived(self, socket: int) -> int:
        """Return how many bytes arrived at a socket: by its packets, or else those that its peer sent."""
        packets = [each for each in self.trace_index.packets_to[socket] if not each.lost]
        if packets:
            return self._packet_end(packets)
        peer = self.trace_index.peer_of(socket)
        return self.sent(peer) if peer is not None else 0

    def unread(self, socket: int) -> int:
        """Return how many bytes have arrived at a stream socket and were not read."""
        found = self._trace.sockets[socket]
        if found.kind != "stream" or found.is_listener or found.is_wrapped:
            return 0
        return max(0, self.arrived(socket) - self.received(socket))

    def unsent(self, socket: int) -> int:
        """Return how many bytes a stream socket was given and its traced peer has not read."""
        peer = self.trace_index.peer_of(socket)
        if peer is None or self._trace.sockets[socket].kind != "stream":
            return 0
        return max(0, self.sent(socket) - self.received(peer))

    def lost(self, socket: int) -> list[Packet]:
        """Return the packets to a socket that carried bytes which never arrived."""
        packets = self.trace_index.packets_to[socket]
        arrived = self._packet_end(each for each in packets if not each.lost)
        return [
            each for each in packets if each.lost and each.size and (each.offset or 0) + each.size > arrived
        ]

    @staticmethod
    def _packet_end(packets: Iterable[Packet]) -> int:
        return max(
            ((each.offset or 0) + each.size for each in packets if each.protocol == "tcp" and each.size),
            default=0,
        )

    # Waits ----------------------------------------------------------------------------------------

    def _wait(self, call: Call) -> PendingWait | None:
        if call.name in SLEEPING:
            return PendingWait(call, call.process, "time", since=call.at)
        if call.name in REAPING:
            children = tuple(
                each.number
                for each in self._trace.processes.values()
                if each.parent == call.process and self.trace_index.ended_at(each.number) is None
            )
            return PendingWait(
                call, call.process, "child", since=call.at, enders=children,
                ender_threads=tuple(self._threads_of(children)),
            )  # fmt: skip
        if call.name.startswith("futex"):
            others = tuple(each for each in self._threads_of([call.process]) if each != call.thread)
            return PendingWait(
                call, call.process, "lock", since=call.at, enders=(call.process,), ender_threads=others
            )
        if call.name in WAITING:
            return self._multiplexed_wait(call)
        if call.socket is None:
            reads_input = call.name in RECEIVING and call.descriptor is not None
            return PendingWait(call, call.process, "input" if reads_input else "other", since=call.at)
        if call.name in ACCEPTING:
            return PendingWait(call, call.process, "connection", (call.socket,), call.at)
        needs: dict[str, Need] = {"connect": "peer"}
        needs.update(dict.fromkeys(RECEIVING, "data"))
        needs.update(dict.fromkeys(SENDING, "space"))
        need = needs.get(call.name)
        return self._socket_wait(call, need, [call.socket]) if need is not None else None

    def _multiplexed_wait(self, call: Call) -> PendingWait:
        sockets = [each for each in call.sockets if each in self._trace.sockets]
        if not sockets:
            need: Need = "input" if call.descriptors_waited else "time"
            return PendingWait(call, call.process, need, since=call.at)
        connected = [
            each
            for each in sockets
            if not self._trace.sockets[each].is_listener and not self._is_internal(each, call.process)
        ]
        if not connected:
            return PendingWait(call, call.process, "connection", tuple(sockets), call.at)
        wanted = dict(zip(call.sockets, call.wanted_events, strict=False))
        for_space = all(self._awaits_space(each, wanted.get(each, "IN")) for each in connected)
        return self._socket_wait(call, "space" if for_space else "data", sockets)

    def _awaits_space(self, socket: int, events: str) -> bool:
        """Whether a wait for these events of a socket is one for room to send, perhaps beside others."""
        if "IN" not in events:
            return True
        if "OUT" not in events:
            return False
        sends = self.trace_index.sends(self._trace.sockets[socket])
        return bool(sends) and sends[-1].requested is not None and sends[-1].size < sends[-1].requested

    def _socket_wait(self, call: Call, need: Need, sockets: list[int]) -> PendingWait:
        processes, threads = list[int](), list[int]()
        unaccepted = remote = False
        sockets = [each for each in sockets if not self._is_internal(each, call.process)] or sockets
        for number in sockets:
            socket = self._trace.sockets[number]
            if socket.is_listener:
                remote = True  # any client may connect
                continue
            peer = self.trace_index.peer_of(number)
            if peer is None:
                target = call.address if need == "peer" else self.target_of(socket)
                listener = self.listener_of(socket, target)
                if listener is not None:
                    unaccepted = unaccepted or (socket.kind == "stream" and need != "peer")
                    peer = listener.number
            if peer is None:
                remote = True
                continue
            holders = self.trace_index.holders_at(peer, self.now)
            processes += [each for each in holders if each not in processes]
            threads += [each for each in self.users_of(peer) if each not in threads]
        return PendingWait(
            call, call.process, need, tuple(sockets), call.at,
            sum(map(self.unread, sockets)), sum(map(self.unsent, sockets)),
            tuple(processes), tuple(each for each in threads if each != call.thread), unaccepted, remote,
        )  # fmt: skip

    def target_of(self, socket: Socket) -> SocketAddress | None:
        """Return the peer of a socket, or the address that a datagram socket last sent to."""
        if socket.peer is not None or socket.kind == "stream":
            return socket.peer
        sends = self.trace_index.sends(socket)
        return sends[-1].address if sends else None

    def serves(self, socket: int) -> bool:
        """Return whether any client may send to a socket: a listener, or a datagram socket that answers."""
        found = self._trace.sockets[socket]
        if found.is_listener or found.kind == "stream" or found.peer is not None:
            return found.is_listener
        sends, receives = self.trace_index.sends(found), self.trace_index.receives(found)
        return not sends or (bool(receives) and receives[0].at < sends[0].at)

    def _is_internal(self, socket: int, process: int) -> bool:
        """Return whether a process holds both ends: the pair with which an event loop wakes itself."""
        peer = self.trace_index.peer_of(socket)
        return peer is not None and set(self.trace_index.holders_at(peer, self.now)) == {process}

    def listener_of(self, socket: Socket, target: SocketAddress | None) -> Socket | None:
        """Return the traced listener, or datagram socket, at the address that a socket connects to."""
        if target is None:
            return None
        for other in self._trace.sockets.values():
            is_candidate = other.is_listener if socket.kind == "stream" else other.kind == socket.kind
            if is_candidate and other.number != socket.number and listens_at(other.local, target):
                return other
        return None

    def users_of(self, socket: int) -> list[int]:
        """Return the running threads that could act on a socket: rule 2."""
        holders = self.trace_index.holders_at(socket, self.now)
        running = [each for each in holders if self.trace_index.ended_at(each) is None]
        users = [
            thread
            for thread in sorted(self._users[socket])
            if self._threads[thread] in running and self._is_there(thread)
        ]
        return users or self._threads_of(running)

    def _threads_of(self, processes: Iterable[int]) -> list[int]:
        wanted = set(processes)
        return [thread for thread, each in self._threads.items() if each in wanted and self._is_there(thread)]

    def _is_there(self, thread: int) -> bool:
        """Return whether a thread may run. One beside a blocked thread may as well have exited.

        The first thread of a process hardly ever exits alone.
        """
        if thread in self._pending_threads:
            return True
        process = self._threads[thread]
        if thread == self._trace.processes[process].pid:
            return self._trace.thread_exits.get(thread, self.now + 1) > self.now
        return process not in self._blocked_processes

    @cached_property
    def _blocked_processes(self) -> set[int]:
        return {self._threads[each] for each in self._pending_threads}

    # Chains ---------------------------------------------------------------------------------------

    @cached_property
    def stuck(self) -> set[int]:
        """The threads whose wait nothing will end, as far as the trace shows: rule 1."""
        stuck = {
            wait.thread
            for wait in self.waits
            if wait.need in _MUTUAL and not wait.may_end_otherwise and wait.ender_threads
        }
        while True:
            endable = {thread for thread in stuck if set(self.by_thread[thread].ender_threads) - stuck}
            if not endable:
                return stuck
            stuck -= endable

    def next_waits(self, wait: PendingWait) -> list[PendingWait]:
        """Return the waits of the threads that could end a wait."""
        return [self.by_thread[each] for each in wait.ender_threads if each in self.by_thread]

    def cycles(self) -> list[tuple[PendingWait, ...]]:
        """Return each deadlock once: waits that only each other could end, shortest cycles first.

        A cycle of locks alone is none: the idle threads of a pool wait on futexes, too.
        """
        found: dict[frozenset[int], tuple[PendingWait, ...]] = {}
        for wait in self.waits:
            if wait.thread in self.stuck:
                cycle = self._cycle_from(wait)
                if any(each.need != "lock" for each in cycle):
                    found.setdefault(frozenset(each.thread for each in cycle), cycle)
        return sorted(found.values(), key=len)

    def mutual(self) -> list[tuple[PendingWait, PendingWait]]:
        """Return the pairs of waits on one connection that only each other or a time limit could end."""
        limited = [
            wait
            for wait in self.waits
            if wait.need in ("data", "space")
            and not wait.remote
            and not wait.call.descriptors_waited
            and len(wait.sockets) == 1
            and len(wait.ender_threads) == 1
        ]
        return [
            (wait, other)
            for at, wait in enumerate(limited)
            for other in limited[at + 1 :]
            if other.thread in wait.ender_threads
            and wait.thread in other.ender_threads
            and self.shares_connection(wait, other)
        ]

    def _cycle_from(self, wait: PendingWait) -> tuple[PendingWait, ...]:
        """Return the shortest path from a wait back to itself; empty if there is none."""
        paths: list[tuple[PendingWait, ...]] = [(wait,)]
        seen = set[int]()
        while paths:
            path = paths.pop(0)
            for following in self.next_waits(path[-1]):
                if following is wait:
                    return path
                if following.thread not in seen:
                    seen.add(following.thread)
                    paths.append((*path, following))
        return ()

    def chain(self, wait: PendingWait) -> list[PendingWait]:
        """Return a wait, the wait of a thread that could end it, and so on: to one that ends otherwise."""
        chain = [wait]
        while True:
            known = {each.thread for each in chain}
            following = [each for each in self.next_waits(chain[-1]) if each.thread not in known]
            if not following or len(chain) > len(self.waits):
                return chain
            following.sort(key=_rank)
            if chain[-1].need == following[0].need == "lock" and chain[-1].process == following[0].process:
                return chain  # idle threads of one pool, which say nothing more
            chain.append(following[0])

    def shares_connection(self, wait: PendingWait, other: PendingWait) -> bool:
        """Return whether two waits are at the two ends of one connection."""
        peers = {self.trace_index.peer_of(each) for each in wait.sockets}
        return any(each in peers for each in other.sockets)

    def sockets_of(self, thread: int) -> list[int]:
        """Return the sockets that a thread has used and its process still holds."""
        process = self._threads[thread]
        return [
            socket
            for socket, users in self._users.items()
            if thread in users and process in self.trace_index.holders_at(socket, self.now)
        ]

    def closing_holders(self, socket: int) -> Iterator[int]:
        """Return the running processes that hold a socket which only others have used: rule 3."""
        used = {self._threads[thread] for thread in self._users[socket]}
        for process in self.trace_index.holders_at(socket, self.now) if used else ():
            if process not in used and self.trace_index.ended_at(process) is None:
                yield process


def _rank(wait: PendingWait) -> int:
    """Return how little a wait explains: not the accept() of a thread beside the one that serves.

    Least of all one for an eventfd or a pipe, by which the threads of a runtime wake each other.
    """
    if wait.need == "input" and wait.call.descriptors_waited and 0 not in wait.call.descriptors_waited:
        return 2
    return 1 if wait.need in ("connection", "lock", "other") else 0
