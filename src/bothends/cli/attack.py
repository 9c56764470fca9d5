"""`bothends attack`: attack a server of one's own, and judge what that does to an honest client."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bothends.cli import terminal
from bothends.cli.reporting import ProgressLine, parse_reports, write_report
from bothends.cli.termination import raise_exit_on_signals, run_until_signal
from bothends.errors import UnknownName, UsageError
from bothends.foreign_text import json_text

if TYPE_CHECKING:
    from bothends.attack.attacks.base import Attack
    from bothends.attack.campaign import CampaignPlan
    from bothends.attack.results import AttackOutcome, AttackResult

_REPORT_FORMATS: Final = ("text", "json", "junit", "tap", "html")
_STYLES: Final = {"held": "good", "degraded": "warning", "failed": "error", "skipped": "quiet"}
_DEFAULT_ENDPOINT: Final = "tcp://127.0.0.1:{port}"


class _CommandAfterDashes(click.Command):
    """A command that keeps what follows `--` apart, because ENDPOINT may be missing before it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Store the words after `--` as `ctx.obj`, and parse the others."""
        at = args.index("--") if "--" in args else len(args)
        ctx.obj = tuple(args[at + 1 :])
        return super().parse_args(ctx, args[:at])


@click.command(cls=_CommandAfterDashes, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("args", metavar="[ENDPOINT]", nargs=-1)
@click.option(
    "--request",
    metavar="TEXT",
    help=r"What the honest client sends, with \r, \n and \xHH as escapes; default: a line with a number.",
)
@click.option("--contract", metavar="NAME", help="The right answer, from a contract of `bothends check`.")
@click.option("--only", multiple=True, metavar="ATTACK", help="Only this attack; may be repeated.")
@click.option(
    "--duration",
    metavar="S",
    type=click.FloatRange(0.2, 3600),
    default=3.0,
    help="Duration of each attack in seconds; default 3.",
)
@click.option(
    "--timeout",
    metavar="S",
    type=click.FloatRange(0.05, 60),
    default=1.0,
    help="An honest request without an answer after S seconds is unanswered; default 1.",
)
@click.option(
    "--seed", metavar="N", type=click.IntRange(0), default=1, help="Seed of the attacks; default 1."
)
@click.option(
    "--i-may", "allowed", metavar="ADDRESS", default="",
    help="Repeat the address, if it is neither loopback nor a host of a wire: you may attack it.",
)  # fmt: skip
@click.option(
    "--report",
    "reports",
    multiple=True,
    metavar="FORMAT[=FILE]",
    help=f"{', '.join(_REPORT_FORMATS)}; default text; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Same as --report json.")
@click.option("--list", "list_only", is_flag=True, help="List the attacks, and attack nothing.")
@click.pass_obj
def attack(
    command: tuple[str, ...],
    /,
    args: tuple[str, ...],
    only: tuple[str, ...],
    reports: tuple[str, ...],
    as_json: bool,
    list_only: bool,
    **given: Any,
) -> None:
    """Attack a server of your own, and see whether an honest client still gets its answers.

    \b
      bothends attack tcp://127.0.0.1:12000         a server that runs
      bothends attack -- python3 server.py {port}   started for each attack
      bothends attack --request 'GET / HTTP/1.0\\r\\n\\r\\n' tcp://127.0.0.1:8080

    First it learns what a right answer is, while nothing else goes on; then it attacks, and compares the
    answers and their latencies. On this machine it also watches the server's memory, descriptors, threads and
    processor. Verdicts: held, degraded (slower, or it keeps what it should give back), failed (wrong answers,
    or none).

    Attack only what is yours. Loopback, UNIX sockets and hosts of a wire need no more; any other address must
    be repeated with --i-may. Exit status: 0 if no attack made it fail, 1 if one did.
    """
    from bothends.attack.attacks import registry

    if list_only:
        rows = [(each.id, each.kind, each.does) for each in registry.ATTACKS.values()]
        terminal.table(("attack", "endpoints", "what the attacker does"), rows)
        return
    wanted = parse_reports((*reports, "json") if as_json else reports or ("text",), _REPORT_FORMATS)
    plan = _build_plan(command, args, _select(only), **given)
    result, interrupted = _run(plan)
    for name, file in wanted:
        _write(result, name, file)
    if interrupted:
        raise KeyboardInterrupt
    if result.failed:
        raise click.exceptions.Exit(1)


def _select(only: tuple[str, ...]) -> list[Attack]:
    from bothends import suggest
    from bothends.attack.attacks.registry import ATTACKS

    for name in only:
        if name not in ATTACKS:
            raise UnknownName("attack", name, suggest.nearest(name, ATTACKS), "`bothends attack --list`")
    return [each for each in ATTACKS.values() if not only or each.id in only]


def _applicable(attacks: list[Attack], *, stream: bool) -> list[Attack]:
    """Return the attacks for streams or datagrams; all that were named, to say why they are skipped."""
    kind = "stream" if stream else "datagram"
    return [each for each in attacks if each.kind == kind] or attacks


def _build_plan(
    command: tuple[str, ...],
    args: tuple[str, ...],
    attacks: list[Attack],
    *,
    request: str | None,
    contract: str | None,
    **given: Any,
) -> CampaignPlan:
    from bothends.attack.campaign import CampaignPlan
    from bothends.attack.expectation import from_contract, parse_request
    from bothends.endpoints import endpoints_from_args

    if command:
        endpoint = args[0] if args else _DEFAULT_ENDPOINT
        stream = not endpoint.startswith(("udp:", "unix+dgram:"))
        if len(args) > 1:
            raise UsageError("expected one endpoint before --, for example udp://127.0.0.1:{port}")
    else:
        if not args:
            raise UsageError("no server to attack: give its endpoint, or its command after --")
        endpoints = endpoints_from_args(args, "tcp")
        if len(endpoints) != 1:
            raise UsageError("expected one endpoint, but got " + ", ".join(map(str, endpoints)))
        endpoint, stream = str(endpoints[0]), endpoints[0].is_stream
    if request is not None and contract is not None:
        raise UsageError("--contract has its own request; leave out --request")
    return CampaignPlan(
        endpoint=endpoint,
        command=command,
        attacks=_applicable(attacks, stream=stream),
        request=parse_request(request, stream=stream) if request is not None else None,
        expectation=from_contract(contract) if contract is not None else None,
        **given,
    )


def _run(plan: CampaignPlan) -> tuple[AttackResult, bool]:
    """Run the plan. Returns: what was seen, and whether ^C ended it early."""
    from bothends.attack.campaign import Campaign
    from bothends.check.subjects.process import subreaper

    with raise_exit_on_signals(), subreaper(), ProgressLine(len(plan.attacks)) as progress:

        def show(event: str | AttackOutcome) -> None:
            if isinstance(event, str):
                progress.show(event)
            else:
                progress.count()

        campaign = Campaign(plan, progress=show)
        try:
            return asyncio.run(run_until_signal(campaign.run())), False
        except KeyboardInterrupt:
            return campaign.result(), True


def _write(result: AttackResult, name: str, file: Path | None) -> None:
    from bothends.check import reports

    if name == "text" and file is None:
        _show(result)
        return
    if name == "json":
        text = json_text(result.as_object(), indent=2) + "\n"
    else:
        text = reports.render(result.as_suite_result(), name)
    write_report(text, name, file)


def _show(result: AttackResult) -> None:
    rows = [_row(each) for each in result.outcomes]
    heads = ("verdict", "attack", "answered", "p50 ms", "p99 ms", "memory MB", "what happened")
    if rows:
        terminal.table(heads, rows)
    for each in result.outcomes:
        if each.meaning:
            terminal.show()
            terminal.show(f"{terminal.styled(each.hold.value, _STYLES[each.hold], sys.stdout)} {each.attack}")
            for head, text in (
                ("attack", each.does),
                ("happened", each.reason),
                *(("also", other) for other in each.others),
                ("meaning", each.meaning),
                ("perhaps it", each.mistake),
                ("stderr", each.stderr_tail.rpartition("\n")[2]),
            ):
                if text:
                    terminal.show(f"  {head:<10} {text}")
    for note in (result.compared, *result.notes):
        if note:
            terminal.show(terminal.styled(f"note: {note}", "quiet", sys.stdout))
    terminal.show()
    counted = ", ".join(f"{result.counts[hold]} {hold}" for hold in result.counts)
    terminal.show(
        f"{result.program}: {counted or 'nothing attacked'}; seed {result.seed}; {result.seconds:.1f} s"
    )


def _row(each: AttackOutcome) -> tuple[str, ...]:
    if each.hold == "skipped":
        return (each.hold.value, each.attack, "-", "-", "-", "-", each.reason)
    memory = "-"
    if each.server is not None:
        memory = f"{each.server.before.memory / 1e6:.0f} > {each.server.peak_memory / 1e6:.0f}"
    return (
        each.hold.value,
        each.attack,
        f"{each.attacked.right:,}/{each.attacked.total:,}",
        f"{each.quiet.p50 * 1e3:.1f} > {each.attacked.p50 * 1e3:.1f}",
        f"{each.quiet.p99 * 1e3:.1f} > {each.attacked.p99 * 1e3:.1f}",
        memory,
        each.reason if each.meaning else each.ending,
    )
