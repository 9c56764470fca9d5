"""What a server has done and does, in numbers: an observer that counts, and Prometheus' text of it.

Rank 1: listens to events, and knows nobody who makes them. Events happen in several processes where a
server has workers, or a process for each connection, and any of them can be killed at any moment. So:

1. The numbers stand in memory that all of the server's processes share (a file without a name, mapped).
   Each process has a slot of its own there, and only its owner writes to it: no process ever waits for
   another, no message can be lost, and what a killed process had counted stays counted.
2. A number is an aligned machine word, stored by one instruction. Whoever reads it meanwhile sees it
   before or after.
3. A slot is taken by a lock on its byte in the file (fcntl(2), F_SETLK), which the kernel takes away
   when the process ends, however it ends. It is not inherited by a child, and a slot that can be
   locked has no living owner: then its open connections are over too, and are counted as closed with
   the cause "killed". The next owner goes on counting where the last one stopped.
4. fork() copies this object, slot and lock included. A hook of the interpreter's makes the copy forget
   both before anything else runs in the child, so that it takes a slot of its own with its first event.

Labels have few values, all of which are listed here: nothing that a peer says or is becomes one.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bothends.errors import HandshakeFailed, MessageTooLong, StreamBroken, Unavailable
from bothends.events import (
    Cause,
    Closed,
    Dropped,
    Established,
    Event,
    Exited,
    Failed,
    NotReloaded,
    Opened,
    Received,
    Refused,
    Reloaded,
    Sent,
    Slowed,
    Strained,
    Why,
)

if TYPE_CHECKING:
    from prometheus_client.core import Metric

# Processes that count at once. More than that many fit on few machines; the memory is only taken by
# those that there have been, 1 KiB each.
SLOTS: Final = 4096
_WIDTH: Final = 128  # words in a slot
_WORD: Final = 8  # bytes

KILLED: Final = "killed"
"""The cause with which connections end whose process did not live to close them."""


@dataclass(frozen=True, slots=True)
class Family:
    """Counters of one name: one for each value of a label, or just one."""

    name: str
    help: str
    label: str = ""
    values: tuple[str, ...] = ("",)


_ROLES: Final = ("server", "worker", "connection", "command", "other")
_CAUSES: Final = tuple(cause.name.lower() for cause in Cause)
_REFUSALS: Final = (Why.FULL, Why.ADDRESS, Why.NETWORK, Why.DESCRIPTOR, Why.THREAD, Why.PROCESS, Why.OTHER)
_DROPS: Final = (
    Why.ADDRESS,
    Why.NETWORK,
    Why.SIZE,
    Why.SOURCE,
    Why.RATE,
    Why.NAMELESS,
    Why.UNSENT,
    Why.OTHER,
)

# In this order they stand in memory, and are read: first those that are closed, so that whatever opens
# meanwhile makes those that are open one too many, and never less than none.
FAMILIES: Final = (
    Family("bothends_connections_closed", "Connections that are over.", "cause", (*_CAUSES, KILLED)),
    Family("bothends_connections", "Connections accepted."),
    Family("bothends_connections_refused", "Connections accepted and closed at once.", "reason", _REFUSALS),
    Family("bothends_handshakes", "Handshakes of what wraps a stream.", "outcome", ("done", "failed")),
    Family("bothends_reads", "Reads from connections that gave something."),
    Family("bothends_writes", "Writes to connections that the system took, or took a part of."),
    Family(
        "bothends_received_bytes", "Bytes received, without what wraps them.", "kind", ("stream", "datagram")
    ),
    Family("bothends_sent_bytes", "Bytes sent, without what wraps them.", "kind", ("stream", "datagram")),
    Family("bothends_datagrams_received", "Datagrams received."),
    Family("bothends_datagrams_answered", "Datagrams answered."),
    Family("bothends_datagrams_dropped", "Datagrams that got no answer for a reason.", "reason", _DROPS),
    Family("bothends_service_failures", "Exceptions of the service."),
    Family("bothends_streams_broken", "Connections ended since what wraps them was broken."),
    Family("bothends_messages_too_long", "Connections ended since a message passed its limit."),
    Family("bothends_slowed", "Peers read more slowly since they sent faster than allowed."),
    Family("bothends_strained", "Times accepting stopped for want of descriptors, memory or processes."),
    Family("bothends_reloads", "Attempts to load the service anew.", "outcome", ("done", "failed")),
    Family(
        "bothends_processes_ended", "Processes that ended badly: by a signal, or not with 0.", "role", _ROLES
    ),
)


def _places() -> dict[tuple[str, str], int]:
    # Word 0 says that the slot was ever taken.
    pairs = ((family.name, value) for family in FAMILIES for value in family.values)
    return {pair: number for number, pair in enumerate(pairs, 1)}


_PLACES: Final = _places()
_OPENED: Final = _PLACES["bothends_connections", ""]
_CLOSED: Final = slice(1, _OPENED)
_KILLED: Final = _PLACES["bothends_connections_closed", KILLED]

# What every read and every write touches: its bytes, and how many there were.
_RECEIVED: Final = (
    (_PLACES["bothends_received_bytes", "datagram"], _PLACES["bothends_datagrams_received", ""]),
    (_PLACES["bothends_received_bytes", "stream"], _PLACES["bothends_reads", ""]),
)
_SENT: Final = (
    (_PLACES["bothends_sent_bytes", "datagram"], _PLACES["bothends_datagrams_answered", ""]),
    (_PLACES["bothends_sent_bytes", "stream"], _PLACES["bothends_writes", ""]),
)

# Slot 0 has no owner: word 0 of it says that somebody found no slot.
_INCOMPLETE: Final = 0


class Metrics:
    """An observer that counts. Make it before anything is forked; children count into it too.

    `close` gives the memory back, for whoever makes many.
    """

    _base: int | None
    """Where the slot of this process begins; None before its first event, 0 where there is no slot left."""

    def __init__(self) -> None:
        self.started = time.time()
        self._file = _nameless_file(SLOTS * _WIDTH * _WORD)
        self._memory = mmap.mmap(self._file, SLOTS * _WIDTH * _WORD)
        self._words = memoryview(self._memory).cast("Q")
        self._server = os.getpid()
        self._forget()
        _living.add(self)

    def __call__(self, event: Event) -> None:
        """Take one event."""
        count = _COUNTERS.get(type(event))
        if count is not None:
            with self._lock:
                if self._base is None:
                    self._base = self._take_slot()
                if self._base:
                    count(self, self._base, event)

    def serve_here(self) -> None:
        """This process runs the server: its reloads count, and not those of its workers."""
        self._server = os.getpid()

    def totals(self) -> dict[tuple[str, str], int]:
        """What has been counted, by family and the value of its label."""
        self._settle_all()
        slots = [self._words[base : base + _WIDTH].tolist() for base in self._taken()]
        return {pair: sum(slot[place] for slot in slots) for pair, place in _PLACES.items()}

    @property
    def complete(self) -> bool:
        """False: more than SLOTS processes counted at once, and what some of them did is missing."""
        return not self._words[_INCOMPLETE]

    def close(self) -> None:
        """Give the memory back. Nothing may happen any more."""
        if self._file >= 0:
            _living.discard(self)
            self._words.release()
            self._memory.close()
            os.close(self._file)
            self._file = -1

    def _forget(self) -> None:
        """Have no slot yet, in a new process or a new object."""
        # Another thread may have held the old ones when this process was forked off.
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        self._base = None

    def _take_slot(self) -> int:
        """Where this process's slot begins; 0 where there is none for it."""
        first = os.getpid()  # processes begin to look at different places
        for step in range(SLOTS - 1):
            slot = 1 + (first + step) % (SLOTS - 1)
            if self._lock_slot(slot):
                base = slot * _WIDTH
                self._settle(base)
                self._words[base] = 1
                return base
        self._words[_INCOMPLETE] = 1
        return 0

    def _lock_slot(self, slot: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
        except OSError:  # EAGAIN or EACCES: it has a living owner; ENOLCK: the kernel has none left
            return False
        return True

    def _taken(self) -> list[int]:
        """Where the slots begin that have, or had, an owner."""
        first_words = self._words[::_WIDTH].tolist()
        return [slot * _WIDTH for slot in range(1, SLOTS) if first_words[slot]]

    def _open(self, base: int) -> int:
        slot = self._words[base : base + _OPENED + 1].tolist()
        return slot[_OPENED] - sum(slot[_CLOSED])

    def _settle(self, base: int) -> None:
        """The former owner of this slot has died: so have its connections."""
        self._words[base + _KILLED] += self._open(base)

    def _settle_all(self) -> None:
        # Two threads of one process can both have a lock.
        with self._settling:
            for base in self._taken():
                # One's own lock could be had again as well, and would then be given away.
                if base != self._base and self._open(base) and self._lock_slot(base // _WIDTH):
                    try:
                        self._settle(base)
                    finally:
                        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, base // _WIDTH)

    def _add(self, base: int, name: str, value: str = "") -> None:
        self._words[base + _PLACES[name, value]] += 1

    def _opened(self, base: int, _event: Opened) -> None:
        self._add(base, "bothends_connections")

    def _closed(self, base: int, event: Closed) -> None:
        self._add(base, "bothends_connections_closed", event.cause.name.lower())

    def _refused(self, base: int, event: Refused) -> None:
        why = event.why if event.why in _REFUSALS else Why.OTHER
        self._add(base, "bothends_connections_refused", why)

    def _dropped(self, base: int, event: Dropped) -> None:
        why = event.why if event.why in _DROPS else Why.OTHER
        self._add(base, "bothends_datagrams_dropped", why)

    def _established(self, base: int, _event: Established) -> None:
        self._add(base, "bothends_handshakes", "done")

    def _received(self, base: int, event: Received) -> None:
        size, count = _RECEIVED[event.connection > 0]
        self._words[base + size] += len(event.data)
        self._words[base + count] += 1

    def _sent(self, base: int, event: Sent) -> None:
        size, count = _SENT[event.connection > 0]
        self._words[base + size] += len(event.data)
        self._words[base + count] += 1

    def _failed(self, base: int, event: Failed) -> None:
        if isinstance(event.error, HandshakeFailed):
            self._add(base, "bothends_handshakes", "failed")
        elif isinstance(event.error, StreamBroken):
            self._add(base, "bothends_streams_broken")
        elif isinstance(event.error, MessageTooLong):
            self._add(base, "bothends_messages_too_long")
        else:
            self._add(base, "bothends_service_failures")

    def _slowed(self, base: int, _event: Slowed) -> None:
        self._add(base, "bothends_slowed")

    def _strained(self, base: int, _event: Strained) -> None:
        self._add(base, "bothends_strained")

    def _reloaded(self, base: int, event: Reloaded | NotReloaded) -> None:
        if self._server == os.getpid():
            self._add(base, "bothends_reloads", "done" if isinstance(event, Reloaded) else "failed")

    def _exited(self, base: int, event: Exited) -> None:
        if event.status:
            self._add(base, "bothends_processes_ended", event.role if event.role in _ROLES else "other")


_COUNTERS: Final[dict[type[Event], Callable[[Metrics, int, Any], None]]] = {
    Opened: Metrics._opened,
    Closed: Metrics._closed,
    Refused: Metrics._refused,
    Dropped: Metrics._dropped,
    Established: Metrics._established,
    Received: Metrics._received,
    Sent: Metrics._sent,
    Failed: Metrics._failed,
    Slowed: Metrics._slowed,
    Strained: Metrics._strained,
    Reloaded: Metrics._reloaded,
    NotReloaded: Metrics._reloaded,
    Exited: Metrics._exited,
}

# A hook can't be taken back, so there is one for all.
_living: weakref.WeakSet[Metrics] = weakref.WeakSet()


def _in_child() -> None:
    for metrics in list(_living):
        metrics._forget()


os.register_at_fork(after_in_child=_in_child)


def _nameless_file(size: int) -> int:
    """A file that nobody else can open, and that is gone with the last process that has it."""
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or not allowed
        file = os.memfd_create("bothends-metrics")
        os.ftruncate(file, size)
        return file
    with tempfile.TemporaryFile() as temporary:
        file = os.dup(temporary.fileno())
    os.ftruncate(file, size)
    return file


def text_format(metrics: Metrics, draining: Callable[[], bool]) -> Callable[[], tuple[bytes, str]]:
    """A function that gives the metrics now, in Prometheus' text format, and the media type of that.

    Raises Unavailable where the library for it isn't there.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
        from prometheus_client.exposition import CONTENT_TYPE_LATEST
    except ImportError as error:
        raise Unavailable(
            "show",
            "metrics",
            reason="the library for it is not installed",
            hint="pip install 'bothends[metrics]'",
        ) from error

    class Collector:
        """What the library asks each time."""

        def collect(self) -> Iterator[Metric]:
            totals = metrics.totals()
            for family in FAMILIES:
                shown = CounterMetricFamily(
                    family.name, family.help, labels=[family.label] if family.label else []
                )
                for value in family.values:
                    shown.add_metric([value] if family.label else [], totals[family.name, value])
                yield shown
            closed = sum(totals["bothends_connections_closed", cause] for cause in (*_CAUSES, KILLED))
            open_now = totals["bothends_connections", ""] - closed
            gauges = {
                "bothends_connections_open": ("Connections open now.", open_now),
                "bothends_draining": ("1 from being told to stop.", int(draining())),
                "bothends_metrics_complete": (
                    f"0 once more than {SLOTS - 1} processes counted at once: some are missing.",
                    int(metrics.complete),
                ),
                "bothends_start_time_seconds": (
                    "When counting began, in seconds since 1970.",
                    metrics.started,
                ),
            }
            for name, (help_, number) in gauges.items():
                yield GaugeMetricFamily(name, help_, value=number)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    return lambda: (generate_latest(registry), CONTENT_TYPE_LATEST)
