"""`bothends bench --bulk`: measure a transfer."""

from __future__ import annotations

from typing import Any, Final

import click

from bothends.cli.bench import http_options, output, tls_options
from bothends.errors import UsageError

# Options that are about requests, and the values that they have unless they are given.
_UNUSED: Final = {
    "rate": None,
    "find_limit": False,
    "depth": 1,
    "reconnect": False,
    "script": None,
    "cluster": None,
    "pid": None,
    "size": 64,
    "hgrm": None,
}


def run(args: tuple[str, ...], given: dict[str, Any]) -> None:
    """Measure a transfer and show the result.

    Raises UsageError, BothendsError, and click.exceptions.Exit with status 1 if there were faults.
    """
    from bothends.bench.generators.bulk import detect_kind, run_bulk, select_bulk_generator
    from bothends.bench.generators.bulk_base import BulkPlan
    from bothends.bench.generators.dialer import check_target
    from bothends.bench.results import BenchEntry
    from bothends.endpoints import endpoints_from_args

    for name, default in _UNUSED.items():
        if given[name] != default:
            raise UsageError(f"--bulk measures a transfer: leave out --{name.replace('_', '-')}")
    http_options.check_unused(given)
    endpoints = endpoints_from_args(args, "tcp")
    if len(endpoints) != 1:
        raise UsageError("expected one endpoint, but got " + ", ".join(map(str, endpoints)))
    endpoint = endpoints[0]
    check_target(endpoint)
    if endpoint.is_message_oriented:
        raise UsageError(f"--bulk needs a stream, and {endpoint.label} is none")
    tls, timeout = tls_options.build(endpoint, given, args[0], "tls"), max(given["timeout"], 1.0)
    kind = given["expect"]
    if kind == "auto":
        kind = detect_kind(endpoint, tls=tls, timeout=timeout)
    plan = BulkPlan(endpoint, kind, given["connections"], given["duration"], given["warmup"], timeout, tls)
    generator = select_bulk_generator(given["generator"], plan)
    rounds = []
    with output.progress() as start_progress:
        for number in range(given["rounds"]):
            show = start_progress(f"round {number + 1} of {given['rounds']}")
            rounds.append(run_bulk(plan, show, generator=generator))
            if rounds[-1].ended:
                break
    entry = BenchEntry(endpoint.label, str(endpoint), plan.load(), rounds)
    document = output.make_document([entry])
    output.write_files(document, None, given["html"])
    output.show(document, given["form"])
    if entry.failed:
        raise click.exceptions.Exit(1)
