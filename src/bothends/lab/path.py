"""The path between the programs of a run: a wire with toxics, in place of the loopback interface.

It is the wire of one host (`wire/plan.py`): packets to 127.0.0.1 leave it and come back. So programs need no
other addresses, and each packet is seen when it is sent, and when it arrives or is lost.
"""

from __future__ import annotations

import collections
import math
import os
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from typing import Final, Self

from bothends.errors import BothendsError, SystemCallFailed
from bothends.impair.scenario import parse_toxic
from bothends.lab.messages import Path
from bothends.osutil import namespaces
from bothends.osutil.wakeup import WakeupPipe
from bothends.trace.capture.packets import READ_BATCH, RawPacket, TransitEvent
from bothends.wire import HostCommand, PacketEvent, Wire, build_topology
from bothends.wire.attach import find_wire

_HOST: Final = "lab"


def _toxics(path: Path) -> Iterator[tuple[str, str]]:
    """Return the types of the toxics, and their attributes as on the command line."""
    if path.delay or path.jitter:
        yield "latency", f"{path.delay:g}ms±{path.jitter:g}ms" if path.jitter else f"{path.delay:g}ms"
    if path.rate:
        yield "bandwidth", f"{path.rate:g}KB/s"
    for kind in ("loss", "duplicate", "reorder"):
        if share := getattr(path, kind):
            yield kind, f"{share:g}%"


class ImpairedPath:
    """A wire as packet source of a `TraceSession`. A context manager; the thread that enters it is on it.

    Raises:
        Unavailable: the system has no device for it.
    """

    def __init__(self, path: Path) -> None:
        placed = [each.placed for kind, text in _toxics(path) for each in parse_toxic(kind, text)]
        topology = build_topology([HostCommand(_HOST, ("true",), no_shell=True)])
        self._wire = Wire(topology, placed, seed=path.seed, observe=self._observe)
        self._events: collections.deque[PacketEvent] = collections.deque()
        self._wakeup = WakeupPipe()
        self._clock_offset = time.time_ns() - time.monotonic_ns()
        self._runs = True
        self._drains = False
        self._thread = threading.Thread(target=self._forward, name="wire", daemon=True)

    def __enter__(self) -> Self:
        self._wire.open()
        with find_wire(_HOST, os.getpid()) as attached:
            namespaces.enter_network(attached.network(_HOST))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._runs = False
        if self._thread.is_alive():
            self._thread.join()
        self._wire.close()
        self._wakeup.close()

    def _forward(self) -> None:
        try:
            self._wire.forward(lambda: self._runs)
        except BothendsError:
            self._runs = False  # its supervisor has been killed: no packet arrives any longer

    def _observe(self, event: PacketEvent) -> None:
        self._events.append(event)
        if len(self._events) == 1:
            self._wakeup.wake()

    def fileno(self) -> int:
        """Return a descriptor that is readable when there are packets."""
        return self._wakeup.fileno()

    def read(self) -> list[RawPacket]:
        """Return the packets since the last call."""
        self._wakeup.drain()
        found = list(self._packets())
        if self._events:
            self._wakeup.wake()
        return found

    def _packets(self) -> Iterator[RawPacket]:
        for _ in range(min(READ_BATCH, len(self._events))):
            event = self._events.popleft()
            receiver = _HOST if event.receiver >= 0 else "nobody"
            toxic = event.toxic.partition("_")[0]  # without its direction
            ends = event.sender, event.receiver
            transit = TransitEvent(event.event, ends, event.number, receiver, toxic)
            yield RawPacket(round(event.at * 1e9) + self._clock_offset, _HOST, event.packet, transit)

    def count_dropped(self) -> int:
        """Return 0: every packet passes through this process."""
        return 0

    def prepare(self, _words: Iterable[str], /) -> None:
        """Do nothing."""

    def look(self, _pids: Iterable[int], _started: Iterable[int], /) -> float:
        """Return infinity: the network is known."""
        return math.inf

    def filter_ports(self, ports: Collection[int] | None) -> None:
        """Do nothing."""

    def has_more(self) -> bool:
        """Return whether packets are still on their way."""
        if not self._drains:
            self._drains = True
            try:
                self._wire.start_drain()
            except SystemCallFailed:
                self._runs = False
        return self._runs and not self._wire.is_drained

    def close(self) -> None:
        """Do nothing: the context manager closes the wire."""
