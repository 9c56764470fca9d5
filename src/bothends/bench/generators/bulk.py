"""Select and run a generator for a bulk transfer; detect what a server does with data."""

from __future__ import annotations

import contextlib
from typing import Final

from bothends.bench.bulk_pattern import BulkCheck, BulkKind
from bothends.bench.generators.base import ProgressCallback
from bothends.bench.generators.bulk_base import SAMPLE_INTERVAL, BulkGenerator, BulkPlan
from bothends.bench.generators.bulk_native import NativeBulkGenerator, unsupported_reason
from bothends.bench.generators.bulk_python import PythonBulkGenerator
from bothends.bench.generators.native import is_usable
from bothends.bench.histogram import Histogram
from bothends.bench.results import STARVED_SHARE, BulkTransfer, GeneratorUsage, LatencySummary, Round
from bothends.client.tls import TlsOptions
from bothends.endpoints import Endpoint
from bothends.errors import TimeoutExpired, UsageError
from bothends.escaping import escape

_BUSY_SHARE: Final = 0.95


def detect_kind(endpoint: Endpoint, *, tls: TlsOptions | None, timeout: float) -> BulkKind:
    """Find out what the server does with data: sends it unasked, returns it, or nothing.

    Raises UsageError if it does something else, BothendsError if the connection fails.
    """
    from bothends.client.blocking import connect

    request = b"bothends\n"
    with connect(endpoint, timeout=min(timeout, 0.3), tls=tls) as connection:
        with contextlib.suppress(TimeoutExpired):
            unasked = connection.receive_exactly(len(request))
            if BulkCheck("chargen").receive(unasked):
                return "chargen"
            raise UsageError(
                f"{endpoint.label} sends {unasked!r} unasked, which is not the pattern of chargen"
            )
        connection.timeout = timeout
        connection.send(request)
        try:
            response = connection.receive_exactly(len(request))
        except TimeoutExpired:
            return "discard"
    if response not in (request, request.upper()):
        problem = f"{endpoint.label} responded to {escape(request)!r} with {escape(response)!r}"
        raise UsageError(f"{problem}: --bulk needs the same data, upper case, or nothing")
    return "echo" if response == request else "upper"


def select_bulk_generator(prefer: str, plan: BulkPlan) -> BulkGenerator:
    """Select a generator: "native", "python", or "auto" for the fastest that supports the plan.

    Raises Unavailable if the native generator was not built, UnsupportedCombination if it does not support
    the plan.
    """
    if prefer != "python" and is_usable(prefer, plan.endpoint, unsupported_reason(plan)):
        return NativeBulkGenerator()
    return PythonBulkGenerator()


def run_bulk(
    plan: BulkPlan,
    on_progress: ProgressCallback | None = None,
    *,
    generator: BulkGenerator | None = None,
) -> Round:
    """Run one round. Raises BothendsError if a connection cannot be opened."""
    used = generator or select_bulk_generator("auto", plan)
    outcome = used.run(plan, on_progress)
    seconds = outcome.seconds
    share, starved = outcome.cpu / seconds, outcome.run_queue_wait / seconds
    limit = "it was busy: the path may take more" if share + starved >= _BUSY_SHARE else ""
    if starved >= STARVED_SHARE:
        limit = f"other processes had its CPU for {starved:.0%} of the time"
    sent, received = outcome.sent, outcome.received
    moved = sent if plan.kind == "discard" else received
    return Round(
        seconds=seconds,
        completed=0,
        per_s=0.0,
        bytes_received=received,
        faults=outcome.faults,
        uncorrected=LatencySummary.from_histogram(Histogram()),
        corrected=None,
        own=GeneratorUsage(used.name, share, starved, limit=limit),
        connections_made=plan.connections,
        ended=outcome.ended,
        bulk=BulkTransfer(plan.kind, moved / seconds, sent, received, SAMPLE_INTERVAL, outcome.samples),
    )
