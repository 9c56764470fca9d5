"""Bulk transfers in C, without the GIL; see `bulk_base.py`. Source: native/generator/bulk.c."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from array import array
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final

from bothends.bench.bulk_pattern import CHUNK, expected_block, period, sent_block
from bothends.bench.generators import native, native_tls
from bothends.bench.generators.base import Progress, ProgressCallback
from bothends.bench.generators.bulk_base import (
    SAMPLE_INTERVAL,
    SERVER_CLOSED,
    BulkOutcome,
    BulkPlan,
    ended_by,
    not_sent,
    other_bytes,
)
from bothends.bench.results import BulkSample, Faults, TcpSample
from bothends.bench.schedule import SECOND
from bothends.client.dial import open_stream
from bothends.client.tls import TlsOptions
from bothends.errors import HandshakeFailed, SystemCallFailed, TimeoutExpired
from bothends.sockets import open_connection

# In the order of `enum cause` in native/generator/bulk.c.
_CAUSES: Final[tuple[Callable[[int], str], ...]] = (
    lambda _: SERVER_CLOSED,
    not_sent,
    other_bytes,
    lambda number: errno.errorcode.get(number, os.strerror(number)),
)


def unsupported_reason(plan: BulkPlan) -> str:
    """Return why this generator does not support a plan; "" if it does."""
    if reason := native.unavailable_reason():
        return reason
    if plan.endpoint.scheme != "tls":
        return ""
    return "it does not support PROXY headers" if plan.endpoint.wrappers else native_tls.unsupported_reason()


class NativeBulkGenerator:
    """Implements `bulk_base.BulkGenerator`."""

    name: ClassVar[str] = "C, epoll"

    def run(self, plan: BulkPlan, on_progress: ProgressCallback | None = None) -> BulkOutcome:
        """Run a plan; see `BulkGenerator.run`."""
        from bothends.bench._generator import transfer

        sends, answers = sent_block(plan.kind), expected_block(plan.kind)
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(each) for each in _open_sockets(plan)]
            try:
                found = transfer(
                    sockets=array("i", [each.fileno() for each in sockets]),
                    sends=sends,
                    send_period=period(sends),
                    answers=answers,
                    answer_period=period(answers),
                    chunk=CHUNK,
                    echoes=plan.kind in ("echo", "upper"),
                    tls=_tls_context(plan),
                    warmup=int(plan.warmup * SECOND),
                    duration=int(plan.duration * SECOND),
                    timeout=int(plan.timeout * SECOND),
                    interval=int(SAMPLE_INTERVAL * SECOND),
                    on_progress=_progress_callback(plan, on_progress) if on_progress is not None else None,
                )
            except TimeoutError:
                raise TimeoutExpired(plan.endpoint.label, "doing the TLS handshake", plan.timeout) from None
            except OSError as error:
                if plan.endpoint.scheme != "tls":
                    raise SystemCallFailed("watch", plan.endpoint.label, error.errno or 0) from error
                raise HandshakeFailed(plan.endpoint.label, error.strerror or str(error)) from error
        return _outcome(found)


def _open_sockets(plan: BulkPlan) -> Iterator[socket.socket]:
    """Open the connections. With TLS, a first look explains a handshake that fails, as a client does."""
    is_tls = plan.endpoint.scheme == "tls"
    if is_tls:
        open_stream(plan.endpoint, timeout=plan.timeout, tls=plan.tls).close()
    for _ in range(plan.connections):
        if is_tls:
            sock = open_connection(plan.endpoint, timeout=plan.timeout)
        else:
            sock = open_stream(plan.endpoint, timeout=plan.timeout)
        yield sock


def _tls_context(plan: BulkPlan) -> Any:
    is_tls = plan.endpoint.scheme == "tls"
    return native_tls.native_context(plan.tls or TlsOptions(), plan.endpoint) if is_tls else None


def _progress_callback(plan: BulkPlan, on_progress: ProgressCallback) -> Any:
    total = plan.warmup + plan.duration

    def callback(elapsed: int, moved: int, faults: int) -> None:
        on_progress(Progress(min(elapsed / SECOND + plan.warmup, total), total, moved, faults))

    return callback


def _outcome(found: dict[str, Any]) -> BulkOutcome:
    return BulkOutcome(
        found["elapsed"] / SECOND,
        found["sent"],
        found["received"],
        found["cpu"],
        found["run_queue_wait"],
        Faults(reset=found["reset"], lost=found["lost"], wrong=found["wrong"]),
        _ended(found),
        _samples(found),
    )


def _ended(found: dict[str, Any]) -> str:
    cause, number = found["cause"], found["cause_number"]
    if cause is None:
        return ""
    return ended_by(found["tls_reason"] or _CAUSES[cause](number))


def _samples(found: dict[str, Any]) -> list[BulkSample]:
    """Turn totals into speeds."""
    samples, before = [], (0, found["sent_before"], found["received_before"])
    for at, sent, received, figures in found["samples"]:
        seconds = (at - before[0]) / SECOND
        speed = [max(0.0, (now - then) / seconds) for now, then in ((sent, before[1]), (received, before[2]))]
        connections = [TcpSample(*each) for each in figures]
        samples.append(BulkSample(at / SECOND, speed[0], speed[1], connections))
        before = (at, sent, received)
    return samples
