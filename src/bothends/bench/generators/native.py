"""The generator in C: one thread, epoll, no GIL. Source: native/generator, extension module `_generator`.

On one CPU it drives several times the load of the generator in Python. If io_uring is permitted, the receives
and sends of many stream connections are batched in one system call. The PROXY header, socket options and,
with some builds of Python (`native_tls.py`), TLS need the generator in Python; `unsupported_reason` returns
which of them a plan needs.
"""

from __future__ import annotations

import errno
import os
import socket
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, ClassVar, Final

import numpy as np

from bothends.bench.generators import native_tls
from bothends.bench.generators.base import (
    UNRESPONSIVE_AFTER,
    MeasurementHooks,
    Progress,
    ProgressCallback,
    RunOutcome,
    RunPlan,
)
from bothends.bench.generators.dialer import BenchDialer
from bothends.bench.heat_map import COLUMNS, ROWS, HeatMap
from bothends.bench.histogram import Histogram
from bothends.bench.http_response import MALFORMED
from bothends.bench.http_target import HttpExchange
from bothends.bench.results import Faults
from bothends.bench.schedule import SECOND, Schedule
from bothends.client.tls import TlsOptions
from bothends.endpoints import Endpoint
from bothends.errors import Unavailable, UnsupportedCombination
from bothends.install_hints import rebuild_command

# In the order of `enum fault` in native/generator/generator.h.
_FAULTS: Final = Faults.__struct_fields__


def unavailable_reason() -> str:
    """Return why the generator in C is not available; "" if it is."""
    try:
        import bothends.bench._generator  # noqa: F401
    except ImportError as error:
        return f"the C extension was not built ({error}): {rebuild_command()}"
    return ""


def is_usable(prefer: str, endpoint: Endpoint, reason: str) -> bool:
    """Return whether the generator in C is used: if nothing speaks against it, which is `reason`.

    Raises Unavailable if it is preferred and was not built, UnsupportedCombination if it is preferred and
    there is another reason.
    """
    if not reason or prefer != "native":
        return not reason
    hint = "use --generator python"
    if unavailable_reason():
        raise Unavailable("use", "the native generator", reason=reason, hint=hint)
    raise UnsupportedCombination("the native generator", endpoint.label, reason, hint)


def unsupported_reason(plan: RunPlan) -> str:
    """Return why this generator does not support a plan; "" if it does."""
    if reason := unavailable_reason():
        return reason
    if plan.endpoint.scheme == "tls" and (reason := native_tls.unsupported_reason()):
        return reason
    if plan.endpoint.wrappers:
        return "it does not support PROXY headers"
    unsupported = [name for name, _ in plan.endpoint.options if name not in ("nodelay", "family")]
    return f"it does not support the option {unsupported[0]}" if unsupported else ""


class NativeGenerator:
    """Implements `base.Generator`. `batch=False`: one system call per operation, as without io_uring."""

    name: ClassVar[str] = "C, epoll"

    def __init__(self, *, batch: bool = True) -> None:
        self._batch = batch

    def run(
        self,
        plan: RunPlan,
        on_progress: ProgressCallback | None = None,
        hooks: MeasurementHooks | None = None,
    ) -> RunOutcome:
        """Run a plan; see `Generator.run`."""
        from bothends.bench._generator import run

        limit = max(plan.timeout, 1.0)
        dialer = BenchDialer(
            plan.endpoint,
            tls=plan.tls,
            timeout=limit,
            reconnect=plan.reconnect or plan.http is not None,
            keep_first=True,
        )
        assert dialer.first_socket is not None
        tls = plan.tls or TlsOptions()
        workload = plan.workload
        found = run(
            like=dialer.first_socket,
            sends=b"".join(workload.requests),
            send_offsets=_offsets(workload.requests),
            answers=b"".join(workload.responses),
            answer_offsets=_offsets(workload.responses),
            end=workload.terminator[0] if workload.terminator else -1,
            numbers=workload.is_numbered,
            reconnect=plan.reconnect,
            requests_per_connection=len(workload) if workload.name == "script" else 1,
            connections=plan.connections,
            depth=plan.depth,
            begin=int(plan.begin * SECOND) if plan.begin is not None else 0,
            warmup=int(plan.warmup * SECOND),
            duration=int(plan.duration * SECOND),
            timeout=int(plan.timeout * SECOND),
            unresponsive_after=int(UNRESPONSIVE_AFTER * SECOND),
            receive_buffer=dialer.receive_buffer,
            sources=b"".join(socket.inet_aton(each) for each in dialer.source_addresses),
            times=_times(plan.schedule) if plan.schedule is not None else None,
            batch=self._batch,
            http=_http_argument(plan.http) if plan.http is not None else None,
            tls=native_tls.native_context(tls, plan.endpoint) if dialer.is_tls else None,
            on_progress=_progress_callback(plan, on_progress) if on_progress is not None else None,
            on_measurement_start=hooks.measurement_started if hooks is not None else None,
            on_measurement_end=hooks.measurement_ended if hooks is not None else None,
        )
        return _outcome(found)


def _http_argument(exchange: HttpExchange) -> tuple[bytes, bool, bytes | None, int]:
    length = -1 if exchange.length is None else exchange.length
    return exchange.status_table(), exchange.has_no_body, exchange.body, length


def _offsets(messages: Sequence[bytes]) -> array[int]:
    return array("q", accumulate(map(len, messages), initial=0))


def _times(schedule: Schedule) -> Iterator[Any]:
    for chunk in schedule.times():
        yield np.ascontiguousarray(chunk)


def _progress_callback(plan: RunPlan, on_progress: ProgressCallback) -> Any:
    total = plan.warmup + plan.duration

    def callback(elapsed: int, completed: int, faults: int) -> None:
        on_progress(Progress(min(elapsed / SECOND, total), total, completed, faults))

    return callback


def _outcome(found: dict[str, Any]) -> RunOutcome:
    seconds = found["each_second"]
    while seconds and not seconds[-1]:
        seconds.pop()
    ended = ""
    if number := found["unresponsive_errno"]:
        reason = found["tls_reason"] or errno.errorcode.get(number, os.strerror(number))
        ended = f"no response since {found['last_answer'] / SECOND:.1f} s: {reason}"
    statuses, malformed, closes = found["http"] or ((), (), 0)
    return RunOutcome(
        faults=Faults(**dict(zip(_FAULTS, found["faults"], strict=True))),
        uncorrected=_histogram(found["uncorrected"]),
        corrected=_histogram(found["corrected"]),
        lateness=_histogram(found["lateness"]),
        wait=_histogram(found["wait"]),
        first_byte=_histogram(found["first_byte"]),
        transfer=_histogram(found["transfer"]),
        heat=HeatMap(np.frombuffer(found["heat"], np.uint32).reshape(COLUMNS, ROWS).astype(np.int64)),
        each_second=seconds,
        completed=found["completed"],
        bytes_received=found["bytes_received"],
        unsent=found["unsent"],
        connections_made=found["connections_made"],
        cpu=found["cpu"],
        run_queue_wait=found["run_queue_wait"],
        wall=found["wall"],
        ended=ended,
        statuses={status: count for status, count in enumerate(statuses) if count},
        malformed={reason: count for reason, count in zip(MALFORMED, malformed, strict=False) if count},
        closes=closes,
    )


def _histogram(counts: bytes) -> Histogram:
    return Histogram(np.frombuffer(counts, np.int64).copy())
