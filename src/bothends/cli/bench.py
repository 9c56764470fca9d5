"""`bothends bench`: measure a server, and say what can be believed of the figures."""

from __future__ import annotations

import contextlib
import datetime
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bothends.cli import terminal
from bothends.errors import CallerError, SystemRefused, Unavailable

if TYPE_CHECKING:
    from bothends.bench.plan import Plan, Progress, Watch
    from bothends.bench.results import Document, Entry
    from bothends.endpoints import Endpoint

_SECONDS = click.FloatRange(min=0.001, max=86400)


@click.command(
    short_help="Measure a server: requests a second, latency, faults.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("words", metavar="ENDPOINT", nargs=-1, required=True)
@click.option("-c", "--connections", metavar="N", type=click.IntRange(1, 100_000), default=1, help="At once.")
@click.option(
    "--depth", metavar="N", type=click.IntRange(1, 2048), default=1, help="Requests open on each, at most."
)
@click.option("--size", metavar="BYTES", type=click.IntRange(1), default=64, help="Of a request.")
@click.option("--duration", metavar="S", type=_SECONDS, default=10.0, help="Measure for so long.")
@click.option("--warmup", metavar="S", type=click.FloatRange(0, 86400), default=1.0, help="Before that.")
@click.option("--timeout", metavar="S", type=_SECONDS, default=1.0, help="Longest wait for an answer.")
@click.option("--rounds", metavar="N", type=click.IntRange(1, 1000), default=1, help="Measure so often.")
@click.option(
    "--rate", metavar="N", type=click.FloatRange(0.001, 1e9), help="Requests a second: an open loop."
)
@click.option(
    "--arrivals",
    type=click.Choice(["fixed", "poisson"]),
    default="fixed",
    help="With --rate: even, or random.",
)
@click.option("--seed", metavar="N", type=click.IntRange(0), default=1, help="Of random arrivals.")
@click.option("--reconnect", is_flag=True, help="A connection for each request.")
@click.option("--script", metavar="FILE", type=click.Path(), help="Lines to send, and what must come.")
@click.option(
    "--expect",
    type=click.Choice(["auto", "echo", "upper"]),
    default="auto",
    help="How it answers; auto asks it once.",
)
@click.option(
    "--generator",
    type=click.Choice(["auto", "native", "python"]),
    default="auto",
    help="What makes the load.",
)
@click.option(
    "--pid", metavar="PID", type=click.IntRange(1), help="The server's process: measure its cost too."
)
@click.option("--json", "form", flag_value="json", help="The result as JSON; `bench compare` reads it.")
@click.option("--csv", "form", flag_value="csv", help="As CSV, a row for each round.")
@click.option("--markdown", "form", flag_value="markdown", help="As a table in Markdown.")
@click.option("--hgrm", metavar="FILE", type=click.Path(), help="Write a log of HdrHistogram's format.")
@click.option("--html", metavar="FILE", type=click.Path(), help="Write a page with plots.")
@click.option("--tls-ca", metavar="FILE", type=click.Path(), help="TLS: believe these issuers (PEM).")
@click.option("--tls-fingerprint", metavar="SHA256", default="", help="TLS: accept exactly this certificate.")
@click.option(
    "--tls-name", metavar="NAME", default="", help="TLS: ask for this host, expect its certificate."
)
@click.option("--insecure", is_flag=True, help="TLS: believe any certificate.")
def bench(words: tuple[str, ...], **given: Any) -> None:
    """Measure the server at ENDPOINT. Every answer is compared with what it must be, byte for byte.

    \b
      bothends serve upper tcp://127.0.0.1:12000        and elsewhere
      bothends bench tcp://127.0.0.1:12000 --connections 50 --duration 5

    Without --rate it is a closed loop: each answer makes room for the next request. With --rate requests
    are due at fixed times, and latency counts from those (corrected) and from the sends (uncorrected).

    Leaves with 0 if every answer was intact, 1 if not.
    """
    with _libraries():
        from bothends.bench.load import generator, load_of, rounds
        from bothends.bench.results import Entry

    plan = plan_of(words, given)
    made_by = generator(given["generator"], plan)
    with progress(given["rounds"]) as watch:
        found = rounds(plan, given["rounds"], by=made_by, watch=watch, server=given["pid"])
    entry = Entry(plan.endpoint.label, str(plan.endpoint), load_of(plan), found)
    document = document_of([entry])
    keep(document, given)
    show(document, given["form"])
    if entry.failed:
        raise click.exceptions.Exit(1)


def plan_of(words: tuple[str, ...], given: dict[str, Any]) -> Plan:
    """What the command line asks for. Raises CallerError, and what asking the target once raises."""
    from bothends.bench.dialing import check_target
    from bothends.bench.plan import Plan
    from bothends.bench.schedule import Schedule
    from bothends.client.tls import TlsOptions
    from bothends.endpoints import from_words

    endpoints = from_words(words, "tcp")
    if len(endpoints) != 1:
        raise CallerError("one endpoint at a time, and there are " + ", ".join(map(str, endpoints)))
    check_target(endpoints[0])
    tls = None
    if endpoints[0].scheme == "tls":
        tls = TlsOptions(
            given["tls_ca"], given["tls_fingerprint"], not given["insecure"], name=given["tls_name"]
        )
    elif given["tls_ca"] or given["tls_fingerprint"] or given["tls_name"] or given["insecure"]:
        raise CallerError(f"{endpoints[0].label} does not speak TLS; tls:// does")
    if given["reconnect"] and given["depth"] > 1:
        raise CallerError("--reconnect makes a connection for each request: its --depth is 1")
    rate = given["rate"]
    return Plan(
        endpoints[0],
        _workload(endpoints[0], tls, given),
        connections=given["connections"],
        depth=given["depth"],
        schedule=Schedule(rate, given["arrivals"], given["seed"]) if rate is not None else None,
        duration=given["duration"],
        warmup=given["warmup"],
        timeout=given["timeout"],
        reconnect=given["reconnect"],
        tls=tls,
    )


def _workload(endpoint: Endpoint, tls: Any, given: dict[str, Any]) -> Any:
    from bothends.bench.dialing import detect
    from bothends.bench.workload import numbered, scripted

    newline = not endpoint.has_boundaries
    if given["script"] is not None:
        try:
            text = Path(given["script"]).read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise SystemRefused("read", given["script"], error.errno or 0) from error
        return scripted(text, newline=newline)
    expect = given["expect"]
    if expect == "auto":
        expect = detect(endpoint, tls=tls, timeout=max(given["timeout"], 1.0))
    return numbered(given["size"], expect, newline=newline, depth=given["depth"])


def document_of(entries: list[Entry], **more: Any) -> Document:
    """Everything that was measured, with the machine and the command that give it again."""
    from bothends.bench.machine import machine
    from bothends.bench.results import VERSION, Document

    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    command = shlex.join(["bothends", *sys.argv[1:]])
    return Document(VERSION, now, command, machine(), entries, **more)


def show(document: Document, form: str | None) -> None:
    """The result, on stdout."""
    from bothends.bench import report
    from bothends.bench.results import encode

    match form:
        case "json":
            click.echo(encode(document), nl=False)
        case "csv":
            click.echo(report.as_csv(document), nl=False)
        case "markdown":
            click.echo(report.as_markdown(document), nl=False)
        case _ if len(document.entries) == 1:
            entry = document.entries[0]
            click.echo(terminal.styled(entry.target, "strong", sys.stdout))
            for label, words in report.lines(entry):
                bad = label == "ended early" or "limit" in words or (label == "verified" and entry.failed)
                click.echo(f"  {label:<20}  {terminal.styled(words, 'warning' if bad else '', sys.stdout)}")
        case _:
            terminal.table(*report.table(document))


def keep(document: Document, given: dict[str, Any]) -> None:
    """Write the files that were asked for. Raises SystemRefused."""
    from bothends.bench import report

    if given["hgrm"] is not None:
        _write(given["hgrm"], report.as_hdr_log(document))


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise SystemRefused("write", path, error.errno or 0) from error


@contextlib.contextmanager
def progress(count: int) -> Iterator[Callable[[int], Watch | None]]:
    """A line on stderr that moves, at a terminal; nothing elsewhere."""
    if not terminal.is_terminal(sys.stderr):
        yield lambda _: None
        return
    import rich.console
    import rich.progress

    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TextColumn("{task.completed:.1f} of {task.total:.1f} s  {task.fields[said]}"),
    )
    console = rich.console.Console(stderr=True, no_color=not terminal.has_colour(sys.stderr))
    with rich.progress.Progress(*columns, console=console, transient=True) as bar:

        def watching(number: int) -> Watch:
            task = bar.add_task(f"round {number + 1} of {count}" if count > 1 else "measuring", said="")

            def told(how_far: Progress) -> None:
                faults = f", {how_far.faults:,} faults" if how_far.faults else ""
                said = f"{how_far.completed:,} answers{faults}"
                bar.update(task, completed=how_far.elapsed, total=how_far.total, said=said)

            return told

        yield watching


@contextlib.contextmanager
def _libraries() -> Iterator[None]:
    """What bench is made of, or one line that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        hint = "pip install 'bothends[bench]'"
        raise Unavailable(
            "run", "bench", reason=f"the package {error.name} isn't installed", hint=hint
        ) from error
