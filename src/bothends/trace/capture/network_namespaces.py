"""Capture packets in the network namespaces of traced processes, beside bothends' own.

1. A packet socket belongs to the namespace that it was opened in (packet(7)). So a thread enters a namespace,
   opens the socket there, and ends: the namespace of the other threads stays as it is (setns(2)).
2. A process may enter another namespace at any time: /proc/PID/ns/net is read soon after it has started, and
   less and less often later. What it sends before is not captured.
3. A packet socket keeps its namespace in existence. It is closed when no traced process is left there.
"""

from __future__ import annotations

import heapq
import os
import select
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bothends.errors import Unavailable
from bothends.osutil.namespaces import enter_network
from bothends.socket_table.owners import NAMED_NAMESPACES, netns_inode, netns_name
from bothends.trace.capture.packets import READ_BATCH, Capture, PacketSource, RawPacket
from bothends.trace.capture.schedule import LookSchedule
from bothends.trace.capture.sightings import HOLD, SightingJoiner

MAX_NAMESPACES: Final = 64
_LINGER: Final = 2.0  # seconds without a process, after which a namespace is captured no longer


@dataclass(slots=True, eq=False)
class _Namespace:
    """A network namespace, by the inode of its file; the capture in it, None if it cannot be had."""

    number: int
    name: str
    capture: PacketSource | None
    used_at: float


class NamespaceCapture:
    """A `PacketSource` for the own namespace and those of the processes that `look` is called with.

    Args:
        own: the capture in the own namespace.
        on_found: called with the pid of a process in another namespace, and the name of that namespace.
        on_missing: called with a pid, the namespace's name and the reason when it cannot be captured; once.
    """

    def __init__(
        self,
        own: PacketSource,
        on_found: Callable[[int, str], None] = lambda *_: None,
        on_missing: Callable[[int, str, str], None] = lambda *_: None,
    ) -> None:
        self.on_found, self.on_missing = on_found, on_missing
        self._own = own
        self._own_inode = netns_inode("self")
        self._others: dict[int, _Namespace] = {}
        self._of_process: dict[int, int] = {}  # by pid: the inode of its namespace when it was last read
        self._schedule = LookSchedule()
        self._joiner: SightingJoiner | None = None  # once there is another namespace
        self._ports: Collection[int] | None = None
        self._dropped = 0  # in namespaces that are captured no longer
        self._epoll = select.epoll()
        self._epoll.register(own.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._epoll.fileno()

    def look(self, pids: Iterable[int], started: Iterable[int] = (), /) -> float:
        """Look where these processes are, as far as it is time to.

        `started` are those that have started another program since.

        Returns: seconds until the next look.
        """
        for pid in started:
            self._schedule.restart(pid)
        due, delay = self._schedule.due(pids)
        now = time.monotonic()
        for pid in due:
            inode = netns_inode(pid)
            before = self._of_process.get(pid)
            if inode == 0 or inode == self._own_inode:
                self._of_process.pop(pid, None)
                continue
            namespace = self._others.get(inode) or self._add(inode, Path(f"/proc/{pid}/ns/net"), pid)
            if namespace is None:
                continue
            namespace.used_at = now
            self._of_process[pid] = inode
            if before != inode:
                self.on_found(pid, namespace.name)
        self._close_unused(now)
        return delay

    def prepare(self, words: Iterable[str]) -> None:
        """Capture in the namespaces that a command line names, as `ip netns exec NAME` does."""
        for word in words:
            path = NAMED_NAMESPACES / word
            if word and "/" not in word and path.exists():
                inode = path.stat().st_ino
                if inode != self._own_inode and inode not in self._others:
                    self._add(inode, path)

    def _add(self, inode: int, path: Path, pid: int = 0) -> _Namespace | None:
        if len(self._others) >= MAX_NAMESPACES:
            return None
        name = netns_name(inode)
        capture, reason = _open_in(path, name)
        if capture is None and not path.exists():
            return None  # the process has exited
        found = self._others[inode] = _Namespace(len(self._others) + 1, name, capture, time.monotonic())
        if capture is None:
            self.on_missing(pid, name, reason)
            return found
        self._joiner = self._joiner or SightingJoiner()
        if self._ports is not None:
            capture.filter_ports(self._ports)
        self._epoll.register(capture.fileno(), select.EPOLLIN)
        return found

    def _close_unused(self, now: float) -> None:
        living = set(self._of_process.values())
        for pid in [each for each in self._of_process if not self._schedule.knows(each)]:
            del self._of_process[pid]
        for inode, each in list(self._others.items()):
            if inode in living:
                each.used_at = now
            elif now - each.used_at > _LINGER and each.capture is not None:
                self._epoll.unregister(each.capture.fileno())
                self._dropped += each.capture.count_dropped()
                each.capture.close()
                del self._others[inode]

    def _captures(self) -> Iterator[tuple[int, PacketSource]]:
        yield 0, self._own
        for each in self._others.values():
            if each.capture is not None:
                yield each.number, each.capture

    def read(self) -> list[RawPacket]:
        """Return the packets captured since the last call, in the order of their times. Never blocks."""
        if self._joiner is None:
            return self._own.read()
        until = time.time_ns() - HOLD
        found = []
        for number, capture in self._captures():
            raws = capture.read()
            if len(raws) >= READ_BATCH:
                until = min(until, raws[-1].at)  # there are more of this namespace
            found.append([(raw.at, number, raw) for raw in raws])
        merged = heapq.merge(*found, key=lambda each: each[:2])
        self._joiner.add((raw, number) for _, number, raw in merged)
        return self._joiner.take(until)

    def count_dropped(self) -> int:
        """Return how many packets the buffers had no room for, so far."""
        return self._dropped + sum(capture.count_dropped() for _, capture in self._captures())

    def filter_ports(self, ports: Collection[int] | None) -> None:
        """Drop packets from and to other ports in the kernel."""
        self._ports = ports
        for _, capture in self._captures():
            capture.filter_ports(ports)

    def has_more(self) -> bool:
        """Return whether more packets wait to be read, or to be joined."""
        waiting = [capture.has_more() for _, capture in self._captures()]
        return any(waiting) or (self._joiner is not None and self._joiner.has_waiting())

    def close(self) -> None:
        """Close the captures."""
        self._epoll.close()
        for _, capture in self._captures():
            capture.close()


def _open_in(path: Path, name: str) -> tuple[Capture | None, str]:
    """Open a capture in the network namespace of a file. Returns it, or None and why it cannot be had."""
    opened: list[Capture] = []
    reasons: list[str] = []

    def open_there() -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                enter_network(descriptor)
            finally:
                os.close(descriptor)
            opened.append(Capture(namespace=name))
        except OSError as error:
            reasons.append(f"setns: {os.strerror(error.errno or 0)}")
        except Unavailable as error:
            reasons.append(str(error))

    thread = threading.Thread(target=open_there, name="capture")
    thread.start()
    thread.join()
    return (opened[0], "") if opened else (None, reasons[0] if reasons else "")
