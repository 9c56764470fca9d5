"""Count events in all processes of a server, and render the counters for Prometheus.

Rank 1: consumes events, and imports nothing that emits them. A server with workers, or with a process for
each connection, has events in several processes, and any of them can be killed at any moment. So:

1. The counters are in memory that all processes share (a mapped file without a name). Each process has a slot
   of its own, and only the owner writes to it: no process waits for another, no message can be lost, and the
   counts of a killed process stay.
2. A counter is an aligned machine word, stored by one instruction. A concurrent reader sees the value before
   or after.
3. A process owns a slot by a lock on its byte of the file (fcntl(2), F_SETLK). The kernel releases the lock
   when the process exits, however it exits, and children do not inherit it. So a slot that can be locked has
   no running owner: its open connections have ended too, and are counted as closed with the cause "killed".
   The next owner continues from the old values.
4. fork() copies this object with its slot and thread lock. An at-fork hook resets both in the child before
   anything else runs there, so the child locks a slot of its own at its first event.

Labels have few values, all of which are listed here. Nothing that a peer sends becomes a label.
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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bothends.errors import HandshakeFailed, MessageTooLong, ProtocolViolation
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

__all__ = ["CounterFamily", "Metrics", "prometheus_exporter"]

# Maximum number of concurrent processes, plus one. Memory is used only by slots that have had an owner, 1 KiB
# each.
SLOTS: Final = 4096
_SLOT_WORDS: Final = 128  # words per slot
_WORD_SIZE: Final = 8  # bytes

KILLED: Final = "killed"
"""The close reason of connections whose process was killed before it closed them."""


@dataclass(frozen=True, slots=True)
class CounterFamily:
    """Counters with one name: one for each value of a label, or a single one."""

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
    RejectReason.LOOP,
    RejectReason.NO_SOURCE_ADDRESS,
    RejectReason.SEND_FAILED,
    RejectReason.OTHER,
)

# The order in memory, in which counters are read too: closed connections come first, so a connection that
# opens meanwhile makes the number of open ones too large by one, and never negative.
FAMILIES: Final = (
    CounterFamily("bothends_connections_closed", "Connections closed.", "cause", (*_CLOSE_REASONS, KILLED)),
    CounterFamily("bothends_connections", "Connections accepted."),
    CounterFamily(
        "bothends_connections_refused", "Connections accepted and closed at once.", "reason", _REJECT_REASONS
    ),
    CounterFamily("bothends_handshakes", "TLS handshakes and PROXY headers.", "outcome", ("done", "failed")),
    CounterFamily("bothends_reads", "Reads from connections that returned data."),
    CounterFamily(
        "bothends_writes", "Writes to connections that the kernel accepted, completely or in part."
    ),
    CounterFamily(
        "bothends_received_bytes",
        "Bytes received, without TLS and PROXY headers.",
        "kind",
        ("stream", "datagram"),
    ),
    CounterFamily(
        "bothends_sent_bytes", "Bytes sent, without TLS and PROXY headers.", "kind", ("stream", "datagram")
    ),
    CounterFamily("bothends_datagrams_received", "Datagrams received."),
    CounterFamily("bothends_datagrams_answered", "Datagrams answered."),
    CounterFamily(
        "bothends_datagrams_dropped", "Datagrams not answered, by reason.", "reason", _DROP_REASONS
    ),
    CounterFamily("bothends_service_failures", "Exceptions of the service."),
    CounterFamily(
        "bothends_streams_broken", "Connections closed because of invalid TLS records or a premature end."
    ),
    CounterFamily("bothends_messages_too_long", "Connections closed because of a message over its limit."),
    CounterFamily("bothends_slowed", "Times a peer exceeded the rate limit and was read more slowly."),
    CounterFamily(
        "bothends_strained", "Times accepting paused because descriptors, memory or processes ran out."
    ),
    CounterFamily("bothends_reloads", "Service reloads.", "outcome", ("done", "failed")),
    CounterFamily(
        "bothends_processes_ended",
        "Processes killed by a signal, or with a nonzero exit status.",
        "role",
        _ROLES,
    ),
)


def _word_offsets() -> dict[tuple[str, str], int]:
    # Word 0 is 1 if the slot has ever had an owner.
    pairs = ((family.name, value) for family in FAMILIES for value in family.values)
    return {pair: number for number, pair in enumerate(pairs, 1)}


_OFFSETS: Final = _word_offsets()
_ACCEPTED_OFFSET: Final = _OFFSETS["bothends_connections", ""]
_CLOSED_OFFSETS: Final = slice(1, _ACCEPTED_OFFSET)
_KILLED_OFFSET: Final = _OFFSETS["bothends_connections_closed", KILLED]

# The counters that every read and every write updates: bytes, then the number of calls.
_RECEIVED_OFFSETS: Final = (
    (_OFFSETS["bothends_received_bytes", "datagram"], _OFFSETS["bothends_datagrams_received", ""]),
    (_OFFSETS["bothends_received_bytes", "stream"], _OFFSETS["bothends_reads", ""]),
)
_SENT_OFFSETS: Final = (
    (_OFFSETS["bothends_sent_bytes", "datagram"], _OFFSETS["bothends_datagrams_answered", ""]),
    (_OFFSETS["bothends_sent_bytes", "stream"], _OFFSETS["bothends_writes", ""]),
)

# The names of the core in C (native/counters.c), with their counters here.
_COUNTER_WORDS: Final = {
    "accepted": _OFFSETS["bothends_connections", ""],
    "reads": _OFFSETS["bothends_reads", ""],
    "received_bytes": _OFFSETS["bothends_received_bytes", "stream"],
    "writes": _OFFSETS["bothends_writes", ""],
    "sent_bytes": _OFFSETS["bothends_sent_bytes", "stream"],
    "datagrams_received": _OFFSETS["bothends_datagrams_received", ""],
    "datagram_bytes_received": _OFFSETS["bothends_received_bytes", "datagram"],
    "datagrams_sent": _OFFSETS["bothends_datagrams_answered", ""],
    "datagram_bytes_sent": _OFFSETS["bothends_sent_bytes", "datagram"],
    **{f"closed {reason}": _OFFSETS["bothends_connections_closed", reason] for reason in _CLOSE_REASONS},
}

# Slot 0 has no owner. Its word 0 is 1 if a process found no free slot.
_INCOMPLETE_FLAG: Final = 0


class Metrics:
    """An observer that counts events. Create it before forking; child processes count in it too."""

    _slot_base: int | None
    """Where this process's slot begins; None before its first event, 0 if no slot was free."""

    def __init__(self) -> None:
        self.started = time.time()
        self._file = _anonymous_file(SLOTS * _SLOT_WORDS * _WORD_SIZE)
        self._memory = mmap.mmap(self._file, SLOTS * _SLOT_WORDS * _WORD_SIZE)
        self._words = memoryview(self._memory).cast("Q")
        self._server_pid = os.getpid()
        self._reset()
        _instances.add(self)

    def __call__(self, event: Event) -> None:
        """Count one event."""
        count = _HANDLERS.get(type(event))
        if count is not None:
            with self._lock:
                base = self._own_slot()
                if base:
                    count(self, base, event)

    def counter_words(self) -> tuple[memoryview, Mapping[str, int]]:
        """See SharedCounters. Release the memory view before `close()`."""
        with self._lock:
            base = self._own_slot()
        if not base:  # no slot is free, so `complete` is False
            return memoryview(bytearray(_SLOT_WORDS * _WORD_SIZE)).cast("Q"), _COUNTER_WORDS
        return self._words[base : base + _SLOT_WORDS], _COUNTER_WORDS

    def set_server_process(self) -> None:
        """Mark this process as the server. Only its reloads are counted, not those of its workers."""
        self._server_pid = os.getpid()

    def totals(self) -> dict[tuple[str, str], int]:
        """Return all counters, by family name and label value."""
        self._reclaim_dead_slots()
        slots = [self._words[base : base + _SLOT_WORDS].tolist() for base in self._used_slots()]
        return {pair: sum(slot[offset] for slot in slots) for pair, offset in _OFFSETS.items()}

    @property
    def complete(self) -> bool:
        """False if more than SLOTS - 1 processes have counted at once, so some counts are missing."""
        return not self._words[_INCOMPLETE_FLAG]

    def close(self) -> None:
        """Release the memory. No event may follow. Idempotent."""
        if self._file >= 0:
            _instances.discard(self)
            self._words.release()
            self._memory.close()
            os.close(self._file)
            self._file = -1

    def _reset(self) -> None:
        """Start without a slot, in a new process or a new object."""
        # Another thread may have held the old locks at the time of the fork.
        self._lock = threading.Lock()
        self._reclaim_lock = threading.Lock()
        self._slot_base = None

    def _own_slot(self) -> int:
        """Return where the slot of this process begins, or 0 if there is none. Call with the lock."""
        if self._slot_base is None:
            self._slot_base = self._claim_slot()
        return self._slot_base

    def _claim_slot(self) -> int:
        """Lock a slot for this process. Returns where it begins, or 0 if none is free."""
        first = os.getpid()  # so that processes start to search at different slots
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
        except OSError:  # EAGAIN or EACCES: its owner is running; ENOLCK: the kernel is out of locks
            return False
        return True

    def _used_slots(self) -> list[int]:
        """Return where the slots begin that have, or have had, an owner."""
        first_words = self._words[::_SLOT_WORDS].tolist()
        return [slot * _SLOT_WORDS for slot in range(1, SLOTS) if first_words[slot]]

    def _open_connections(self, base: int) -> int:
        slot = self._words[base : base + _ACCEPTED_OFFSET + 1].tolist()
        return slot[_ACCEPTED_OFFSET] - sum(slot[_CLOSED_OFFSETS])

    def _reclaim_slot(self, base: int) -> None:
        """Count the open connections of an exited owner as killed."""
        self._words[base + _KILLED_OFFSET] += self._open_connections(base)

    def _reclaim_dead_slots(self) -> None:
        # fcntl(2) locks belong to the process, so they do not exclude its other threads.
        with self._reclaim_lock:
            for base in self._used_slots():
                # This process could lock its own slot again, and the unlock would then release it.
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

# A fork hook cannot be removed, so one hook serves all objects.
_instances: weakref.WeakSet[Metrics] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for metrics in list(_instances):
        metrics._reset()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _anonymous_file(size: int) -> int:
    """Open a file without a name, which the kernel frees with its last descriptor. Returns the descriptor."""
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or forbidden
        file = os.memfd_create("bothends-metrics")
        os.ftruncate(file, size)
        return file
    with tempfile.TemporaryFile() as temporary:
        file = os.dup(temporary.fileno())
    os.ftruncate(file, size)
    return file


def prometheus_exporter(metrics: Metrics, draining: Callable[[], bool]) -> Callable[[], tuple[bytes, str]]:
    """Return a function that renders the metrics in Prometheus' text format, with its media type.

    Args:
        metrics: the counters.
        draining: returns whether the server is shutting down.
    """
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.exposition import CONTENT_TYPE_LATEST

    class Collector:
        """A collector in the sense of prometheus_client."""

        def collect(self) -> Iterator[Metric]:
            totals = metrics.totals()
            for family in FAMILIES:
                counter = CounterMetricFamily(
                    family.name, family.help, labels=[family.label] if family.label else []
                )
                for value in family.values:
                    counter.add_metric([value] if family.label else [], totals[family.name, value])
                yield counter
            closed = sum(totals["bothends_connections_closed", cause] for cause in (*_CLOSE_REASONS, KILLED))
            open_now = totals["bothends_connections", ""] - closed
            gauges = {
                "bothends_connections_open": ("Connections open now.", open_now),
                "bothends_draining": ("1 while the server shuts down.", int(draining())),
                "bothends_metrics_complete": (
                    f"0 once more than {SLOTS - 1} processes have counted at the same time.",
                    int(metrics.complete),
                ),
                "bothends_start_time_seconds": (
                    "Start of counting, in seconds since 1970.",
                    metrics.started,
                ),
            }
            for name, (help_, number) in gauges.items():
                yield GaugeMetricFamily(name, help_, value=number)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    return lambda: (generate_latest(registry), CONTENT_TYPE_LATEST)
