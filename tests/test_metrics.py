"""Metrics: exact counts over several processes, killed ones included, and the Prometheus format."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bothends import metrics as module
from bothends.endpoints import Address
from bothends.errors import HandshakeFailed, MessageTooLong, ProtocolViolation
from bothends.events import (
    Accepted,
    AcceptPaused,
    ChildExited,
    Closed,
    CloseReason,
    ConnectionRejected,
    DatagramDropped,
    Draining,
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
from bothends.metrics import FAMILIES, Metrics, prometheus_exporter

PEER = Address("inet", "192.0.2.1", 5000)
LOCAL = Address("inet", "192.0.2.2", 12000)

# From Python 3.12: the test process may have threads, which its children do not need.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
OPENED = Accepted(1, PEER, LOCAL)
CLOSED = Closed(1, PEER, CloseReason.PEER, 0, 0)


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    counted = Metrics()
    yield counted
    counted.close()


def shown(metrics: Metrics, *, draining: bool = False) -> dict[str, float]:
    """Return the exposed values by `name{label="value"}`."""
    text, _ = prometheus_exporter(metrics, lambda: draining)()
    return {
        sample.name + "".join(f'{{{name}="{value}"}}' for name, value in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def nonzero(metrics: Metrics) -> dict[str, float]:
    always = ("bothends_metrics_complete", "bothends_start_time_seconds")
    return {name: number for name, number in shown(metrics).items() if number and name not in always}


@contextlib.contextmanager
def child(main: Callable[[], object]) -> Iterator[int]:
    """Fork a process that calls `main` and then waits. Yields its id; kills it at the end."""
    done, ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            main()
            os.write(ready, b".")
            signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(done, 1) == b"."
        yield pid
    finally:
        os.close(done)
        os.close(ready)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            kill(pid)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("events", "counted"),
    [
        ([OPENED], {"bothends_connections_total": 1, "bothends_connections_open": 1}),
        (
            [OPENED, OPENED, Closed(1, PEER, CloseReason.IDLE, 3, 4)],
            {
                "bothends_connections_total": 2,
                "bothends_connections_open": 1,
                'bothends_connections_closed_total{cause="idle"}': 1,
            },
        ),
        (
            [Received(1, PEER, b"hello"), Received(1, PEER, b"!"), Sent(1, PEER, b"HELLO!")],
            {
                'bothends_received_bytes_total{kind="stream"}': 6,
                'bothends_sent_bytes_total{kind="stream"}': 6,
                "bothends_reads_total": 2,
                "bothends_writes_total": 1,
            },
        ),
        (
            [Received(0, PEER, b"hello"), Received(0, PEER, b""), Sent(0, PEER, b"HELLO")],
            {
                'bothends_received_bytes_total{kind="datagram"}': 5,
                'bothends_sent_bytes_total{kind="datagram"}': 5,
                "bothends_datagrams_received_total": 2,
                "bothends_datagrams_answered_total": 1,
            },
        ),
        (
            [
                ConnectionRejected(PEER, "2 are open", RejectReason.FULL),
                ConnectionRejected(PEER, "what is this?", RejectReason.NO_SOURCE_ADDRESS),
            ],
            {
                'bothends_connections_refused_total{reason="full"}': 1,
                'bothends_connections_refused_total{reason="other"}': 1,
            },
        ),
        (
            [DatagramDropped(PEER, "too fast", RejectReason.RATE)],
            {'bothends_datagrams_dropped_total{reason="rate"}': 1},
        ),
        (
            [DatagramDropped(PEER, "?", RejectReason.FULL)],
            {'bothends_datagrams_dropped_total{reason="other"}': 1},
        ),
        ([HandshakeCompleted(1, PEER, PEER, "TLS 1.3")], {'bothends_handshakes_total{outcome="done"}': 1}),
        ([ServiceFailed(1, PEER, ValueError())], {"bothends_service_failures_total": 1}),
        (
            [ServiceFailed(1, PEER, HandshakeFailed("", ""))],
            {'bothends_handshakes_total{outcome="failed"}': 1},
        ),
        ([ServiceFailed(1, PEER, ProtocolViolation("", ""))], {"bothends_streams_broken_total": 1}),
        ([ServiceFailed(1, PEER, MessageTooLong(1, 2))], {"bothends_messages_too_long_total": 1}),
        ([RateLimited(1, PEER, 1000)], {"bothends_slowed_total": 1}),
        ([AcceptPaused(errno.EMFILE, 1000)], {"bothends_strained_total": 1}),
        (
            [Reloaded("upper"), ReloadFailed("upper", "no such file")],
            {'bothends_reloads_total{outcome="done"}': 1, 'bothends_reloads_total{outcome="failed"}': 1},
        ),
        (
            [ChildExited(1, "worker", -9), ChildExited(2, "worker", 0), ChildExited(3, "cook", 1)],
            {
                'bothends_processes_ended_total{role="worker"}': 1,
                'bothends_processes_ended_total{role="other"}': 1,
            },
        ),
        ([Draining(3, 5.0)], {}),
    ],
)
def test_events_are_counted(metrics: Metrics, events: list[Event], counted: dict[str, float]) -> None:
    for event in events:
        metrics(event)
    assert nonzero(metrics) == counted


def test_exposition_is_parsed_by_prometheus_client(metrics: Metrics) -> None:
    text, kind = prometheus_exporter(metrics, lambda: True)()
    assert kind.startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    assert all(family.documentation for family in families.values())
    for family in FAMILIES:
        found = families[family.name]
        assert found.type == "counter"
        assert len(found.samples) == len(family.values)
    gauges = {name for name, family in families.items() if family.type == "gauge"}
    assert gauges == {
        "bothends_connections_open",
        "bothends_draining",
        "bothends_metrics_complete",
        "bothends_start_time_seconds",
    }
    assert shown(metrics, draining=True)["bothends_draining"] == 1
    assert shown(metrics)["bothends_start_time_seconds"] == pytest.approx(metrics.started)


def test_every_close_reason_has_counter(metrics: Metrics) -> None:
    for cause in CloseReason:
        metrics(OPENED)
        metrics(dataclasses.replace(CLOSED, cause=cause))
    closed = {name: number for name, number in shown(metrics).items() if "_closed_" in name}
    assert sum(closed.values()) == len(CloseReason)
    assert sorted(closed.values()) == [0] + [1] * len(CloseReason)  # no process was killed


def test_counts_of_exited_children_are_kept(metrics: Metrics) -> None:
    def emit_events() -> None:
        metrics(OPENED)
        metrics(Received(1, PEER, b"hello"))
        metrics(CLOSED)

    metrics(OPENED)
    with child(emit_events), child(emit_events):
        assert shown(metrics)["bothends_connections_total"] == 3
    with child(emit_events):
        pass
    numbers = shown(metrics)
    assert numbers["bothends_connections_total"] == 4
    assert numbers["bothends_connections_open"] == 1
    assert numbers['bothends_received_bytes_total{kind="stream"}'] == 15
    assert numbers['bothends_connections_closed_total{cause="peer"}'] == 3


def test_connections_of_killed_child_count_as_closed(metrics: Metrics) -> None:
    def emit_events() -> None:
        for _ in range(3):
            metrics(OPENED)
        metrics(CLOSED)

    metrics(OPENED)
    with child(emit_events) as pid:
        assert shown(metrics)["bothends_connections_open"] == 3
        kill(pid)
        for _ in range(2):  # and reclaimed once only
            numbers = shown(metrics)
            assert numbers["bothends_connections_open"] == 1
            assert numbers['bothends_connections_closed_total{cause="killed"}'] == 2


def test_grandchild_uses_own_slot(metrics: Metrics) -> None:
    def emit_events() -> None:
        metrics(OPENED)
        with child(lambda: metrics(OPENED)):
            metrics(OPENED)

    with child(emit_events):
        numbers = shown(metrics)
    assert numbers["bothends_connections_total"] == 3
    assert numbers["bothends_connections_open"] == 2
    assert numbers['bothends_connections_closed_total{cause="killed"}'] == 1


def test_slot_of_dead_process_is_reused_with_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SLOTS", 3)  # one for this process, one for a child
    metrics = Metrics()
    metrics(OPENED)
    for _ in range(4):
        with child(lambda: metrics(OPENED)):
            pass
    numbers = shown(metrics)
    assert numbers["bothends_connections_total"] == 5
    assert numbers["bothends_connections_open"] == 1
    assert numbers["bothends_metrics_complete"] == 1
    with child(lambda: metrics(OPENED)), child(lambda: metrics(OPENED)):
        numbers = shown(metrics)
    assert numbers["bothends_connections_total"] == 6
    assert numbers["bothends_metrics_complete"] == 0
    metrics.close()


def test_threads_do_not_lose_counts(metrics: Metrics) -> None:
    def emit_events() -> None:
        for _ in range(2000):
            metrics(OPENED)
            metrics(CLOSED)

    threads = [threading.Thread(target=emit_events) for _ in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert shown(metrics)["bothends_connections_open"] >= 0
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert shown(metrics)["bothends_connections_total"] == 8000
    assert shown(metrics)["bothends_connections_open"] == 0


def test_lock_held_during_fork_does_not_block_child(metrics: Metrics) -> None:
    with metrics._lock, metrics._reclaim_lock, child(lambda: metrics(OPENED)):
        pass
    assert shown(metrics)["bothends_connections_total"] == 1


def test_only_server_process_counts_reloads(metrics: Metrics) -> None:
    def work() -> None:
        metrics(Reloaded("upper"))

    def serve() -> None:
        metrics.set_server_process()
        metrics(Reloaded("upper"))

    with child(work):
        assert shown(metrics)['bothends_reloads_total{outcome="done"}'] == 0
    with child(serve):
        assert shown(metrics)['bothends_reloads_total{outcome="done"}'] == 1


def test_close_releases_descriptors() -> None:
    gc.collect()
    before, living = len(list(Path("/proc/self/fd").iterdir())), len(module._instances)
    metrics = Metrics()
    metrics(OPENED)
    metrics.close()
    metrics.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert len(module._instances) == living


def test_without_memfd_uses_temporary_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    metrics = Metrics()
    with child(lambda: metrics(OPENED)):
        assert shown(metrics)["bothends_connections_open"] == 1
    metrics.close()


def test_label_values_fit_slot() -> None:
    assert sum(len(family.values) for family in FAMILIES) < module._SLOT_WORDS
