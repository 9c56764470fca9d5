"""`bothends bench`: measure throughput and latency of a server, and verify its replies."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bothends.cli import terminal
from bothends.cli.bench import bulk, http_options, output, tls_options
from bothends.cli.help_layout import lay_out
from bothends.cli.wire_options import wire_options
from bothends.errors import SystemCallFailed, UsageError

if TYPE_CHECKING:
    from bothends.bench.generators.base import Generator, ProgressCallback, RunPlan
    from bothends.bench.results import Round
    from bothends.endpoints import Endpoint

_SECONDS = click.FloatRange(min=0.001, max=86400)


# Subcommand of `bench` -> its command ("module:attribute"). Any other first argument is an endpoint.
SUBCOMMANDS: Final = {
    "engines": "bothends.cli.bench.engines:engines",
    "compare": "bothends.cli.bench.compare:compare",
}


class BenchCommand(click.Command):
    """The command `bench ENDPOINT`, with subcommands."""

    def subcommands(self) -> list[click.Command]:
        """Import and return the subcommands."""
        return [_load_subcommand(name) for name in SUBCOMMANDS]

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Create the context of the subcommand that the first argument names, or else of this command."""
        if args and args[0] in SUBCOMMANDS:
            command = lay_out(_load_subcommand(args[0]))
            return command.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that the context belongs to."""
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)


def _load_subcommand(name: str) -> click.Command:
    module, _, attribute = SUBCOMMANDS[name].partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    return command


@click.command(
    cls=BenchCommand,
    short_help="Benchmark a server: requests per second, latency, errors.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("args", metavar="ENDPOINT", nargs=-1, required=True)
@click.option(
    "-c",
    "--connections",
    metavar="N",
    type=click.IntRange(1, 100_000),
    default=1,
    help="Concurrent connections.",
)
@click.option(
    "--depth", metavar="N", type=click.IntRange(1, 2048), default=1, help="Requests in flight per connection."
)
@click.option("--size", metavar="BYTES", type=click.IntRange(1), default=64, help="Request size.")
@click.option("--duration", metavar="S", type=_SECONDS, default=10.0, help="Duration of a run.")
@click.option(
    "--warmup", metavar="S", type=click.FloatRange(0, 86400), default=1.0, help="Warm-up before each run."
)
@click.option("--timeout", metavar="S", type=_SECONDS, default=1.0, help="Timeout for a reply.")
@click.option("--rounds", metavar="N", type=click.IntRange(1, 1000), default=1, help="Number of runs.")
@click.option(
    "--rate", metavar="N", type=click.FloatRange(0.001, 1e9), help="Open loop: requests per second."
)
@click.option(
    "--arrivals",
    type=click.Choice(["fixed", "poisson"]),
    default="fixed",
    help="With --rate: evenly spaced, or random.",
)
@click.option("--seed", metavar="N", type=click.IntRange(0), default=1, help="Seed of random arrivals.")
@click.option("--find-limit", is_flag=True, help="Find the highest rate that keeps p99 under --bound.")
@click.option(
    "--bound",
    metavar="MS",
    type=click.FloatRange(0.001),
    default=10.0,
    help="With --find-limit: limit of p99 in ms.",
)
@click.option(
    "--bulk", is_flag=True, help="Measure a transfer, as fast as the path takes it, and TCP's figures."
)
@click.option("--reconnect", is_flag=True, help="Open a new connection for each request.")
@click.option("--script", metavar="FILE", type=click.Path(), help="Lines to send, and the expected replies.")
@click.option(
    "--expect",
    type=click.Choice(["auto", "echo", "upper", "chargen", "discard"]),
    default="auto",
    help="How the server replies; auto sends one request to find out. The last two are for --bulk.",
)
@click.option(
    "--generator",
    type=click.Choice(["auto", "native", "python"]),
    default="auto",
    help="Load generator.",
)
@click.option(
    "--pid", metavar="PID", type=click.IntRange(1), help="PID of the server: measure its CPU time too."
)
@click.option(
    "--cluster", metavar="ADDRESS", help="Scheduler of a dask cluster whose workers generate the load."
)
@http_options.http_options
@output.output_options
@tls_options.tls_options
@wire_options("client")
def bench(args: tuple[str, ...], **given: Any) -> None:
    """Measure the server at ENDPOINT. Every reply is verified, byte for byte.

    \b
      bothends serve upper tcp://127.0.0.1:12000        in another terminal
      bothends bench tcp://127.0.0.1:12000 --connections 50 --duration 5
      bothends bench http://127.0.0.1:8000/page -c 50 --expect-status 200

    ENDPOINT may be a URL of HTTP. Of its responses, status, length and body are verified as far as they are
    the same in the first three, or as the options say.

    Without --rate it is a closed loop: each reply triggers the next request. With --rate, requests are
    scheduled at fixed times, and latency is measured from those (corrected) and from the sends (uncorrected).

    `bench engines` measures all engines side by side, `bench compare` compares two results.

    Exit status: 0 if every reply was correct, 1 if not.
    """
    from bothends.bench.load import load_from_plan, run_rounds, select_generator
    from bothends.bench.results import BenchEntry

    output.check_writable(given["hgrm"], given["html"])
    if given["bulk"]:
        bulk.run(args, given)
        return
    plan, count = build_plan(args, given), given["rounds"]
    notes: list[str] = []
    if given["cluster"] is not None:
        found = _run_on_cluster(plan, given, notes)
    else:
        generator = select_generator(given["generator"], plan)
        if given["find_limit"]:
            _find_limit(plan, generator, given)
            return
        with output.progress() as start_progress:
            found = run_rounds(
                plan,
                count,
                generator=generator,
                progress_for=lambda n: start_progress(f"round {n + 1} of {count}"),
                server_pid=given["pid"],
            )
    entry = BenchEntry(plan.endpoint.label, plan.target, load_from_plan(plan), found)
    document = output.make_document([entry], notes=notes)
    output.write_files(document, given["hgrm"], given["html"])
    output.show(document, given["form"])
    if entry.failed:
        raise click.exceptions.Exit(1)


def _run_on_cluster(plan: RunPlan, given: dict[str, Any], notes: list[str]) -> list[Round]:
    from bothends import dask_cluster
    from bothends.bench import cluster

    if given["find_limit"] or given["pid"] is not None:
        raise UsageError("--cluster cannot be combined with --find-limit or --pid")
    found = []
    with dask_cluster.connect(given["cluster"], lambda text: terminal.note(text, "warning")) as client:
        for _ in range(given["rounds"]):
            measured, cluster_notes = cluster.measure_on_cluster(client, plan, given["generator"])
            found.append(measured)
            notes += cluster_notes
    return found


def _find_limit(plan: RunPlan, generator: Generator, given: dict[str, Any]) -> None:
    from bothends.bench.load import find_max_rate
    from bothends.bench.rate_search import LatencyBound

    with output.progress() as start_progress:

        def progress_for(rate: float) -> ProgressCallback | None:
            return start_progress(f"{rate:,.0f}/s" if rate else "closed loop")

        rate, tried = find_max_rate(
            plan,
            LatencyBound(given["bound"] * 1000),
            generator=generator,
            progress_for=progress_for,
            server_pid=given["pid"],
        )
    bound = f"p99 below {given['bound']:g} ms from the scheduled time, and no errors"
    within_bound = [each for each in tried if each.load.rate == rate]
    if within_bound:
        note = f"The limit: {rate:,.0f} requests/s with {bound}; {len(tried)} rates were tried."
    else:
        note = f"None of {len(tried)} rates had {bound}."
    shown = within_bound[-1:] or tried[-1:]
    document = output.make_document(shown, notes=[note], knee=tried)
    output.write_files(document, given["hgrm"], given["html"])
    output.show(document, given["form"])
    if not within_bound:
        raise click.exceptions.Exit(1)


def build_plan(args: tuple[str, ...], given: dict[str, Any]) -> RunPlan:
    """Return the run plan of the command line.

    Raises:
        UsageError: invalid options.
        BothendsError: the request that detects how the server replies has failed.
    """
    from bothends.bench import http_target
    from bothends.bench.generators.base import RunPlan
    from bothends.bench.generators.dialer import check_target
    from bothends.bench.schedule import Schedule
    from bothends.endpoints import endpoints_from_args

    url = http_target.parse_url(args[0]) if len(args) == 1 and http_target.is_http_url(args[0]) else None
    endpoints = [url.endpoint] if url is not None else endpoints_from_args(args, "tcp")
    if len(endpoints) != 1:
        raise UsageError("expected one endpoint, but got " + ", ".join(map(str, endpoints)))
    check_target(endpoints[0])
    tls = tls_options.build(endpoints[0], given, args[0], "https" if url is not None else "tls")
    if given["expect"] in ("chargen", "discard"):
        raise UsageError(f"--expect {given['expect']} is for --bulk")
    if url is not None:
        http_options.check_unsupported(given)
    else:
        http_options.check_unused(given)
    if given["find_limit"] and given["rate"] is not None:
        raise UsageError("--find-limit chooses the rates itself: leave out --rate")
    if given["reconnect"] and given["depth"] > 1:
        raise UsageError("--reconnect opens a connection for each request: leave out --depth")
    rate, is_open = given["rate"], given["rate"] is not None or given["find_limit"]
    exchange = None
    if url is not None:
        workload, exchange = http_options.build_exchange(url, tls, given)
    else:
        workload = _workload(endpoints[0], tls, given)
    return RunPlan(
        endpoints[0],
        workload,
        connections=given["connections"],
        depth=given["depth"],
        schedule=Schedule(rate or 1.0, given["arrivals"], given["seed"]) if is_open else None,
        duration=given["duration"],
        warmup=given["warmup"],
        timeout=given["timeout"],
        reconnect=given["reconnect"],
        tls=tls,
        http=exchange,
    )


def _workload(endpoint: Endpoint, tls: Any, given: dict[str, Any]) -> Any:
    from bothends.bench.generators.dialer import detect_rule
    from bothends.bench.workload import numbered, parse_script

    newline = not endpoint.is_message_oriented
    if given["script"] is not None:
        try:
            text = Path(given["script"]).read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise SystemCallFailed("read", given["script"], error.errno or 0) from error
        return parse_script(text, newline=newline)
    expect = given["expect"]
    if expect == "auto":
        expect = detect_rule(endpoint, tls=tls, timeout=max(given["timeout"], 1.0))
    return numbered(given["size"], expect, newline=newline, depth=given["depth"])
