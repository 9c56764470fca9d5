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

from bothends.errors import HandshakeFailed, MessageTooLong, ProtocolViolation, Unavailable
from bothends.events import (
    Accepted,
    AcceptPaused,
    ChildExited,
    Closed,
    CloseReason,
    ConnectionRejected,
    DatagramDropped,
    Event,
    HandshakeCompleted,
    RateLimited,
    Received,
    RejectReason,
    Reloaded,
    ReloadFailed,
    Sent,
    ServiceFailed,
)

if TYPE_CHECKING:
    from prometheus_client.core import Metric

# Processes that count at once. More than that many fit on few machines; the memory is only taken by
# those that there have been, 1 KiB each.
SLOTS: Final = 4096
_SLOT_WORDS: Final = 128  # words in a slot
_WORD_SIZE: Final = 8  # bytes

KILLED: Final = "killed"
"""The cause with which connections end whose process did not live to close them."""


@dataclass(frozen=True, slots=True)
class CounterFamily:
    """Counters of one name: one for each value of a label, or just one."""

    name: str
    help: str
    label: str = ""
    values: tuple[str, ...] = ("",)


_ROLES: Final = ("server", "worker", "connection", "command", "other")
_CLOSE_REASONS: Final = tuple(cause.name.lower() for cause in CloseReason)
_REJECT_REASONS: Final = (
    RejectReason.FULL,
    RejectReason.ADDRESS,
    RejectReason.NETWORK,
    RejectReason.DESCRIPTOR,
    RejectReason.THREAD,
    RejectReason.PROCESS,
    RejectReason.OTHER,
)
_DROP_REASONS: Final = (
    RejectReason.ADDRESS,
    RejectReason.NETWORK,
    RejectReason.SIZE,
    RejectReason.SOURCE,
    RejectReason.RATE,
    RejectReason.NO_SOURCE_ADDRESS,
    RejectReason.SEND_FAILED,
    RejectReason.OTHER,
)

# In this order they stand in memory, and are read: first those that are closed, so that whatever opens
# meanwhile makes those that are open one too many, and never less than none.
FAMILIES: Final = (
    CounterFamily(
        "bothends_connections_closed", "Connections that are over.", "cause", (*_CLOSE_REASONS, KILLED)
    ),
    CounterFamily("bothends_connections", "Connections accepted."),
    CounterFamily(
        "bothends_connections_refused", "Connections accepted and closed at once.", "reason", _REJECT_REASONS
    ),
    CounterFamily("bothends_handshakes", "Handshakes of what wraps a stream.", "outcome", ("done", "failed")),
    CounterFamily("bothends_reads", "Reads from connections that gave something."),
    CounterFamily("bothends_writes", "Writes to connections that the system took, or took a part of."),
    CounterFamily(
        "bothends_received_bytes", "Bytes received, without what wraps them.", "kind", ("stream", "datagram")
    ),
    CounterFamily(
        "bothends_sent_bytes", "Bytes sent, without what wraps them.", "kind", ("stream", "datagram")
    ),
    CounterFamily("bothends_datagrams_received", "Datagrams received."),
    CounterFamily("bothends_datagrams_answered", "Datagrams answered."),
    CounterFamily(
        "bothends_datagrams_dropped", "Datagrams that got no answer for a reason.", "reason", _DROP_REASONS
    ),
    CounterFamily("bothends_service_failures", "Exceptions of the service."),
    CounterFamily("bothends_streams_broken", "Connections ended since what wraps them was broken."),
    CounterFamily("bothends_messages_too_long", "Connections ended since a message passed its limit."),
    CounterFamily("bothends_slowed", "Peers read more slowly since they sent faster than allowed."),
    CounterFamily(
        "bothends_strained", "Times accepting stopped for want of descriptors, memory or processes."
    ),
    CounterFamily("bothends_reloads", "Attempts to load the service anew.", "outcome", ("done", "failed")),
    CounterFamily(
        "bothends_processes_ended", "Processes that ended badly: by a signal, or not with 0.", "role", _ROLES
    ),
)


def _word_offsets() -> dict[tuple[str, str], int]:
    # Word 0 says that the slot was ever taken.
    pairs = ((family.name, value) for family in FAMILIES for value in family.values)
    return {pair: number for number, pair in enumerate(pairs, 1)}


_OFFSETS: Final = _word_offsets()
_ACCEPTED_OFFSET: Final = _OFFSETS["bothends_connections", ""]
_CLOSED_OFFSETS: Final = slice(1, _ACCEPTED_OFFSET)
_KILLED_OFFSET: Final = _OFFSETS["bothends_connections_closed", KILLED]

# What every read and every write touches: its bytes, and how many there were.
_RECEIVED_OFFSETS: Final = (
    (_OFFSETS["bothends_received_bytes", "datagram"], _OFFSETS["bothends_datagrams_received", ""]),
    (_OFFSETS["bothends_received_bytes", "stream"], _OFFSETS["bothends_reads", ""]),
)
_SENT_OFFSETS: Final = (
    (_OFFSETS["bothends_sent_bytes", "datagram"], _OFFSETS["bothends_datagrams_answered", ""]),
    (_OFFSETS["bothends_sent_bytes", "stream"], _OFFSETS["bothends_writes", ""]),
)

# Slot 0 has no owner: word 0 of it says that somebody found no slot.
_INCOMPLETE_FLAG: Final = 0


class Metrics:
    """An observer that counts. Make it before anything is forked; children count into it too.

    `close` gives the memory back, for whoever makes many.
    """

    _slot_base: int | None
    """Where the slot of this process begins; None before its first event, 0 where there is no slot left."""

    def __init__(self) -> None:
        self.started = time.time()
        self._file = _anonymous_file(SLOTS * _SLOT_WORDS * _WORD_SIZE)
        self._memory = mmap.mmap(self._file, SLOTS * _SLOT_WORDS * _WORD_SIZE)
        self._words = memoryview(self._memory).cast("Q")
        self._server_pid = os.getpid()
        self._reset()
        _instances.add(self)

    def __call__(self, event: Event) -> None:
        """Take one event."""
        count = _HANDLERS.get(type(event))
        if count is not None:
            with self._lock:
                if self._slot_base is None:
                    self._slot_base = self._claim_slot()
                if self._slot_base:
                    count(self, self._slot_base, event)

    def set_server_process(self) -> None:
        """This process runs the server: its reloads count, and not those of its workers."""
        self._server_pid = os.getpid()

    def totals(self) -> dict[tuple[str, str], int]:
        """What has been counted, by family and the value of its label."""
        self._reclaim_dead_slots()
        slots = [self._words[base : base + _SLOT_WORDS].tolist() for base in self._used_slots()]
        return {pair: sum(slot[place] for slot in slots) for pair, place in _OFFSETS.items()}

    @property
    def complete(self) -> bool:
        """False: more than SLOTS processes counted at once, and what some of them did is missing."""
        return not self._words[_INCOMPLETE_FLAG]

    def close(self) -> None:
        """Give the memory back. Nothing may happen any more."""
        if self._file >= 0:
            _instances.discard(self)
            self._words.release()
            self._memory.close()
            os.close(self._file)
            self._file = -1

    def _reset(self) -> None:
        """Have no slot yet, in a new process or a new object."""
        # Another thread may have held the old ones when this process was forked off.
        self._lock = threading.Lock()
        self._reclaim_lock = threading.Lock()
        self._slot_base = None

    def _claim_slot(self) -> int:
        """Where this process's slot begins; 0 where there is none for it."""
        first = os.getpid()  # processes begin to look at different places
        for step in range(SLOTS - 1):
            slot = 1 + (first + step) % (SLOTS - 1)
            if self._lock_slot(slot):
                base = slot * _SLOT_WORDS
                self._reclaim_slot(base)
                self._words[base] = 1
                return base
        self._words[_INCOMPLETE_FLAG] = 1
        return 0

    def _lock_slot(self, slot: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
        except OSError:  # EAGAIN or EACCES: it has a living owner; ENOLCK: the kernel has none left
            return False
        return True

    def _used_slots(self) -> list[int]:
        """Where the slots begin that have, or had, an owner."""
        first_words = self._words[::_SLOT_WORDS].tolist()
        return [slot * _SLOT_WORDS for slot in range(1, SLOTS) if first_words[slot]]

    def _open_connections(self, base: int) -> int:
        slot = self._words[base : base + _ACCEPTED_OFFSET + 1].tolist()
        return slot[_ACCEPTED_OFFSET] - sum(slot[_CLOSED_OFFSETS])

    def _reclaim_slot(self, base: int) -> None:
        """The former owner of this slot has died: so have its connections."""
        self._words[base + _KILLED_OFFSET] += self._open_connections(base)

    def _reclaim_dead_slots(self) -> None:
        # Two threads of one process can both have a lock.
        with self._reclaim_lock:
            for base in self._used_slots():
                # One's own lock could be had again as well, and would then be given away.
                if (
                    base != self._slot_base
                    and self._open_connections(base)
                    and self._lock_slot(base // _SLOT_WORDS)
                ):
                    try:
                        self._reclaim_slot(base)
                    finally:
                        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, base // _SLOT_WORDS)

    def _add(self, base: int, name: str, value: str = "") -> None:
        self._words[base + _OFFSETS[name, value]] += 1

    def _on_accepted(self, base: int, _event: Accepted) -> None:
        self._add(base, "bothends_connections")

    def _on_closed(self, base: int, event: Closed) -> None:
        self._add(base, "bothends_connections_closed", event.cause.name.lower())

    def _on_connection_rejected(self, base: int, event: ConnectionRejected) -> None:
        why = event.why if event.why in _REJECT_REASONS else RejectReason.OTHER
        self._add(base, "bothends_connections_refused", why)

    def _on_datagram_dropped(self, base: int, event: DatagramDropped) -> None:
        why = event.why if event.why in _DROP_REASONS else RejectReason.OTHER
        self._add(base, "bothends_datagrams_dropped", why)

    def _on_handshake_completed(self, base: int, _event: HandshakeCompleted) -> None:
        self._add(base, "bothends_handshakes", "done")

    def _on_received(self, base: int, event: Received) -> None:
        size, count = _RECEIVED_OFFSETS[event.connection > 0]
        self._words[base + size] += len(event.data)
        self._words[base + count] += 1

    def _on_sent(self, base: int, event: Sent) -> None:
        size, count = _SENT_OFFSETS[event.connection > 0]
        self._words[base + size] += len(event.data)
        self._words[base + count] += 1

    def _on_service_failed(self, base: int, event: ServiceFailed) -> None:
        if isinstance(event.error, HandshakeFailed):
            self._add(base, "bothends_handshakes", "failed")
        elif isinstance(event.error, ProtocolViolation):
            self._add(base, "bothends_streams_broken")
        elif isinstance(event.error, MessageTooLong):
            self._add(base, "bothends_messages_too_long")
        else:
            self._add(base, "bothends_service_failures")

    def _on_rate_limited(self, base: int, _event: RateLimited) -> None:
        self._add(base, "bothends_slowed")

    def _on_accept_paused(self, base: int, _event: AcceptPaused) -> None:
        self._add(base, "bothends_strained")

    def _on_reload(self, base: int, event: Reloaded | ReloadFailed) -> None:
        if self._server_pid == os.getpid():
            self._add(base, "bothends_reloads", "done" if isinstance(event, Reloaded) else "failed")

    def _on_child_exited(self, base: int, event: ChildExited) -> None:
        if event.status:
            self._add(base, "bothends_processes_ended", event.role if event.role in _ROLES else "other")


_HANDLERS: Final[dict[type[Event], Callable[[Metrics, int, Any], None]]] = {
    Accepted: Metrics._on_accepted,
    Closed: Metrics._on_closed,
    ConnectionRejected: Metrics._on_connection_rejected,
    DatagramDropped: Metrics._on_datagram_dropped,
    HandshakeCompleted: Metrics._on_handshake_completed,
    Received: Metrics._on_received,
    Sent: Metrics._on_sent,
    ServiceFailed: Metrics._on_service_failed,
    RateLimited: Metrics._on_rate_limited,
    AcceptPaused: Metrics._on_accept_paused,
    Reloaded: Metrics._on_reload,
    ReloadFailed: Metrics._on_reload,
    ChildExited: Metrics._on_child_exited,
}

# A hook can't be taken back, so there is one for all.
_instances: weakref.WeakSet[Metrics] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for metrics in list(_instances):
        metrics._reset()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _anonymous_file(size: int) -> int:
    """A file that nobody else can open, and that is gone with the last process that has it."""
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or not allowed
        file = os.memfd_create("bothends-metrics")
        os.ftruncate(file, size)
        return file
    with tempfile.TemporaryFile() as temporary:
        file = os.dup(temporary.fileno())
    os.ftruncate(file, size)
    return file


def prometheus_exporter(metrics: Metrics, draining: Callable[[], bool]) -> Callable[[], tuple[bytes, str]]:
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
            closed = sum(totals["bothends_connections_closed", cause] for cause in (*_CLOSE_REASONS, KILLED))
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
