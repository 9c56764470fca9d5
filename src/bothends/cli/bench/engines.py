"""`bothends bench engines`: measure all engines and the reference servers side by side."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import click

from bothends.cli import terminal
from bothends.cli.bench import output
from bothends.cli.termination import raise_exit_on_signals
from bothends.errors import UsageError

if TYPE_CHECKING:
    from bothends.bench.generators.base import ProgressCallback
    from bothends.bench.targets import BenchTarget

_LOADS: Final = ("one", "fifty", "thousand", "deep", "reconnect", "udp", "idle")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", metavar="[ENGINE]...", nargs=-1)
@click.option(
    "--load", "loads", type=click.Choice(_LOADS), multiple=True, help="Only this load; may be repeated."
)
@click.option(
    "--as-run",
    is_flag=True,
    help="Measure each engine also with --metrics, and with a log of connections in a file.",
)
@click.option("--rivals/--no-rivals", default=True, help="Measure the reference servers too, or not.")
@click.option(
    "--target",
    "targets",
    metavar="NAME=WHAT",
    multiple=True,
    help="Another server: a command or an endpoint.",
)
@click.option("--baseline", metavar="NAME", help="Target that ratios refer to. Default: c-epoll, or epoll.")
@click.option(
    "--rounds",
    metavar="N",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="Number of rounds.",
)
@click.option(
    "--duration", metavar="S", type=click.FloatRange(0.05, 3600), default=1.0, help="Duration of a run."
)
@click.option(
    "--warmup", metavar="S", type=click.FloatRange(0, 3600), default=0.2, help="Warm-up before each."
)
@click.option("--size", metavar="BYTES", type=click.IntRange(1), default=64, help="Request size.")
@click.option("--seed", metavar="N", type=click.IntRange(0), default=1, help="Seed of the order.")
@output.output_options
def engines(names: tuple[str, ...], **given: Any) -> None:
    """Measure all engines and the reference servers side by side, each in a separate process.

    \b
      bothends bench engines
      bothends bench engines epoll uvloop --load fifty --rounds 7 --html e.html
      bothends bench engines --target 'mine=./server {port}'

    The server runs on the first CPU and the generator on the last. Each round measures all targets in a
    random order. Results are medians over the rounds, and ratios within a round.
    """
    from bothends.bench import campaign
    from bothends.bench.results import BenchEntry

    output.check_writable(given["hgrm"], given["html"])
    targets = _targets(names, given["targets"], rivals=given["rivals"], as_run=given["as_run"])
    if given["baseline"] and not any(each.name == given["baseline"] for each in targets):
        raise UsageError(f"--baseline: there is no target {given['baseline']!r}")
    loads = [campaign.LOAD_PROFILES[each] for each in given["loads"] or _LOADS]
    settings = campaign.CampaignSettings(
        given["rounds"], given["duration"], given["warmup"], given["size"], seed=given["seed"]
    )
    with raise_exit_on_signals(), output.progress() as start_progress:

        def progress_for(done: int, total: int, title: str) -> ProgressCallback | None:
            return start_progress(f"{done + 1} of {total}: {title}")

        entries: list[BenchEntry] = campaign.run_campaign(targets, loads, settings, progress_for)
    baseline = given["baseline"] or next(
        (each for each in ("c-epoll", "epoll") if any(e.name == each and e.rounds for e in entries)), ""
    )
    first, last = _processors()
    note = f"The server ran on CPU {first}, the generator on CPU {last}; seed {given['seed']}."
    document = output.make_document(entries, baseline=baseline, notes=[note])
    output.write_files(document, given["hgrm"], given["html"])
    output.show(document, given["form"], as_table=True)
    if any(each.failed for each in entries if each.rounds):
        terminal.note("some replies were wrong or missing: see the column of faults", "warning")
        raise click.exceptions.Exit(1)


def _targets(
    names: tuple[str, ...], specs: tuple[str, ...], *, rivals: bool, as_run: bool
) -> list[BenchTarget]:
    from bothends.bench import targets
    from bothends.bench.engine_targets import AS_RUN, engine_target
    from bothends.engines import registry

    found = [
        engine_target(registry.load(name), registry.default_size(name), suffix)
        for name in names or registry.names()
        for suffix in AS_RUN
        if as_run or not suffix
    ]
    found += [targets.parse_target(text) for text in specs]
    found += targets.reference_servers() if rivals else []
    duplicates = {each.name for each in found if [other.name for other in found].count(each.name) > 1}
    if duplicates:
        raise UsageError(f"two targets are named {min(duplicates)!r}")
    return found


def _processors() -> tuple[int, int]:
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]
