"""Find the threads that can end a wait: edges from blocked threads through sockets to other processes. Pure.

1. A thread that waits for several descriptors continues when any of them is ready. So a wait is hopeless only
   if every thread that could end it is stuck as well.
2. The stuck threads are the greatest set with that property: start with all blocked threads, and remove those
   that something outside the set can wake, until nothing changes. What is left can only be woken by a signal
   or by the end of a process.
3. Everything that is not fully known counts as able to wake: a running thread, a time limit, a terminal, a
   listener (any client may connect), a remote peer, a process whose calls are hidden. So a client at its
   prompt and an event loop with a listener are never stuck, nor is a client that waits for them.
4. A thread in accept(2) of a server with one thread per connection could also send, but rarely does. With
   `accept_wakes=False` it counts as stuck; a result that needs this is an inference.
5. With `limits_wake=False` a thread in a call with a time limit counts as stuck: until the limit, it is.
"""

from __future__ import annotations

import ipaddress
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

from bothends.osutil.blocked_calls import CallKind, DescriptorWait, Need
from bothends.socket_table import SocketEntry
from bothends.why.model import ObservedProcess, ObservedThread, Snapshot, ends_by_itself

# Threads of the HotSpot virtual machine, which run no code of the program (their comm has 15 bytes).
_RUNTIME_THREADS: Final = re.compile(
    r"(GC Thread|G1 |VM |C[12] Compiler|Reference Handl|Finalizer|Signal Dispatc|Service Thread"
    r"|Monitor Deflati|Notification |Common-Cleaner|Attach Listener|Sweeper thread|Libgraal)"
)
_EVENTFD: Final = "anon_inode:[eventfd]"
_NO_PORT: Final = 0

_Key = tuple[str, str, int, str, int]  # protocol, local host and port, peer host and port


class WaitGraph:
    """The sockets and threads of a snapshot, joined."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.by_inode: dict[int, SocketEntry] = {
            entry.inode: entry for entry in snapshot.sockets if entry.inode
        }
        self._by_ends: dict[_Key, list[SocketEntry]] = defaultdict(list)
        self._listeners: dict[int, list[SocketEntry]] = defaultdict(list)
        self._by_pid: dict[int, list[SocketEntry]] = defaultdict(list)
        for entry in snapshot.sockets:
            for pid in {owner.pid for owner in entry.owners}:
                self._by_pid[pid].append(entry)
            if entry.state == "LISTEN" and entry.local.port:
                self._listeners[entry.local.port].append(entry)
            elif entry.peer.port:
                self._by_ends[_ends(entry)].append(entry)
        self._waiting: dict[int, list[ObservedThread]] = defaultdict(list)
        for thread in snapshot.threads():
            for inode in {wait.inode for wait in thread.call.waits if wait.inode} if thread.call else ():
                self._waiting[inode].append(thread)
        self._stuck: dict[tuple[bool, bool], frozenset[int]] = {}

    def peer(self, entry: SocketEntry) -> SocketEntry | None:
        """Return the socket at the other end, if it is on this machine, in any network namespace."""
        if entry.peer_inode:
            return self.by_inode.get(entry.peer_inode)
        if entry.peer.port == _NO_PORT or entry.state == "LISTEN":
            return None
        protocol, host, port, peer_host, peer_port = _ends(entry)
        found = [
            each
            for each in self._by_ends.get((protocol, peer_host, peer_port, host, port), ())
            if each is not entry
        ]
        same = [each for each in found if each.netns == entry.netns]
        if same or is_loopback(entry.peer.host):  # a loopback address means this namespace
            return same[0] if same else None
        return found[0] if len(found) == 1 else None  # the same addresses in two containers: unknown

    def listener(self, entry: SocketEntry) -> SocketEntry | None:
        """Return the listening socket whose accept queue a connection is in, or would be put in."""
        found = [
            each
            for each in self._listeners.get(entry.local.port, ())
            if each.netns == entry.netns and _accepts(each, entry.local.host)
        ]
        return max(found, key=lambda each: not _is_any(each.local.host), default=None)

    def target(self, entry: SocketEntry) -> SocketEntry | None:
        """Return the listening socket on this machine that a connection attempt is sent to."""
        host = plain_host(entry.peer.host)
        return next(
            (
                each
                for each in self._listeners.get(entry.peer.port, ())
                if each.protocol == entry.protocol
                and not (each.v6only and ":" not in host)
                and (
                    plain_host(each.local.host) == host
                    or (each.netns == entry.netns and _is_any(each.local.host) and is_loopback(host))
                )
            ),
            None,
        )

    def is_queued(self, entry: SocketEntry) -> bool:
        """Whether a connection is in an accept queue: established, but no process has a descriptor yet."""
        is_open = entry.state in ("ESTABLISHED", "CLOSE-WAIT")
        return entry.inode == 0 and is_open and self.listener(entry) is not None

    def owners(self, entry: SocketEntry) -> list[ObservedProcess]:
        """Return the processes that have a socket open."""
        pids = dict.fromkeys(owner.pid for owner in entry.owners)
        return [self.snapshot.processes[pid] for pid in pids if pid in self.snapshot.processes]

    def sockets_of(self, pid: int) -> list[SocketEntry]:
        """Return the sockets that a process has open."""
        return self._by_pid.get(pid, [])

    def waiting(self, entry: SocketEntry) -> list[ObservedThread]:
        """Return the threads whose call waits for a socket."""
        return self._waiting.get(entry.inode, [])

    def waits_for(self, thread: ObservedThread) -> Iterator[tuple[DescriptorWait, SocketEntry]]:
        """Yield the sockets that a thread waits for."""
        for wait in thread.call.waits if thread.call else ():
            if (entry := self.by_inode.get(wait.inode)) is not None:
                yield wait, entry

    def stuck(self, *, accept_wakes: bool = True, limits_wake: bool = True) -> frozenset[int]:
        """Return the ids of the threads that nothing on this machine or outside of it can wake."""
        key = accept_wakes, limits_wake
        if key not in self._stuck:
            self._stuck[key] = self._find_stuck(accept_wakes, limits_wake)
        return self._stuck[key]

    def _find_stuck(self, accept_wakes: bool, limits_wake: bool) -> frozenset[int]:
        enders: dict[int, set[int]] = {}
        for thread in self.snapshot.threads():
            found = self._possible_enders(thread, accept_wakes, limits_wake)
            if found is not None:
                enders[thread.tid] = found
        dependents: dict[int, list[int]] = defaultdict(list)
        for tid, others in enders.items():
            for other in others:
                dependents[other].append(tid)
        awake = [
            tid for tid in {other for others in enders.values() for other in others} if tid not in enders
        ]
        while awake:
            woken = [tid for tid in dependents.get(awake.pop(), ()) if enders.pop(tid, None) is not None]
            awake += woken
        return frozenset(enders)

    def _possible_enders(
        self, thread: ObservedThread, accept_wakes: bool, limits_wake: bool
    ) -> set[int] | None:
        """Return the threads that can end a thread's wait; None if something else can as well."""
        if not thread.is_settled or thread.call is None or not thread.readable:
            return None
        if _RUNTIME_THREADS.match(thread.name) and self._is_java(thread):
            return set()
        call = thread.call
        if ends_by_itself(call, limits_wake=limits_wake):
            return None
        process = self.snapshot.processes[thread.pid]
        own = {other.tid for other in process.threads if other.tid != thread.tid}
        if call.kind is CallKind.THREADS:
            return own
        found: set[int] = set()
        for wait in call.waits:
            if wait.need is Need.CONNECTION and thread.is_in_accept and not accept_wakes:
                continue
            if wait.inode in self.by_inode:
                threads = self._enders_of_socket(wait, self.by_inode[wait.inode], direct=call.direct)
                if threads is None:
                    return None
                found |= threads
            elif process.files.get(wait.fd) == _EVENTFD:
                found |= own
            else:
                return None
        return found

    def _enders_of_socket(self, wait: DescriptorWait, entry: SocketEntry, *, direct: bool) -> set[int] | None:
        if entry.type == "dgram" or wait.need in (Need.CONNECTION, Need.PEER) or entry.state == "LISTEN":
            return None
        if wait.need is Need.DATA and entry.recv_queue and not direct and not wait.edge:
            return None  # ready: the thread is about to run
        other = self.peer(entry)
        if other is None:
            return None
        if entry.send_queue and not other.recv_queue and wait.need is Need.SPACE:
            return None  # on its way
        if wait.need is Need.DATA and other.send_queue and not entry.recv_queue:
            return None
        source = self.listener(other) if self.is_queued(other) else other
        processes = self.owners(source) if source else []
        if not processes or len(processes) < len({owner.pid for owner in (source or other).owners}):
            return None
        return {thread.tid for process in processes for thread in process.threads}

    def _is_java(self, thread: ObservedThread) -> bool:
        return any(each.name == "VM Thread" for each in self.snapshot.processes[thread.pid].threads)


def is_loopback(host: str) -> bool:
    """Whether an address is one of the loopback interface."""
    try:
        return ipaddress.ip_address(plain_host(host)).is_loopback
    except ValueError:
        return False


def find_cycles(edges: dict[int, set[int]]) -> list[list[int]]:
    """Return the strongly connected components with more than one member (Tarjan 1972, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found: list[list[int]] = []
    for root, first_targets in edges.items():
        if root in index:
            continue
        work: list[tuple[int, Iterator[int]]] = [(root, iter(sorted(first_targets)))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, targets = work[-1]
            for target in targets:
                if target not in edges:
                    continue
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    on_stack.add(target)
                    work.append((target, iter(sorted(edges[target]))))
                    break
                if target in on_stack:
                    low[node] = min(low[node], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = stack[stack.index(node) :]
                    del stack[len(stack) - len(component) :]
                    on_stack.difference_update(component)
                    if len(component) > 1:
                        found.append(component)
    return found


def settled(threads: Iterable[ObservedThread]) -> bool:
    """Whether all threads are blocked, and have been for a while. False for none."""
    threads = list(threads)
    return bool(threads) and all(thread.is_settled for thread in threads)


@lru_cache(maxsize=4096)
def plain_host(host: str) -> str:
    """Return an IPv4-mapped address (RFC 4291 section 2.5.5.2) as plain IPv4."""
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def _ends(entry: SocketEntry) -> _Key:
    return (
        entry.protocol,
        plain_host(entry.local.host),
        entry.local.port,
        plain_host(entry.peer.host),
        entry.peer.port,
    )


def _is_any(host: str) -> bool:
    return host in ("0.0.0.0", "::")


def _accepts(listener: SocketEntry, local: str) -> bool:
    listening, host = plain_host(listener.local.host), plain_host(local)
    if _is_any(listening):
        return ":" in host if listener.v6only else ":" in listening or ":" not in host
    return listening == host
