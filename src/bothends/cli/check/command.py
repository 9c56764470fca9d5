"""`bothends check`: test a client or a server, in any language, by its behaviour on its sockets."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from bothends import suggest
from bothends.cli import terminal
from bothends.cli.check.batch import batch
from bothends.cli.check.class_tools import classroom, gradescope
from bothends.cli.check.options import REPORT_FORMATS, allow_code_option, split_command
from bothends.cli.check.record import record
from bothends.cli.help_layout import OrderedGroup
from bothends.cli.reporting import ProgressLine, parse_reports, write_report
from bothends.cli.termination import raise_exit_on_signals, run_until_signal
from bothends.cli.wire_options import WirePath, inside_option, remove_inside_option, rerun_on_wire
from bothends.errors import SystemCallFailed, UnknownName, UsageError
from bothends.textfile import read_text

if TYPE_CHECKING:
    from bothends.check.results import CaseOutcome, SuiteResult

_HELP: Final = {"help_option_names": ["-h", "--help"]}
_LOSSY_TOXICS: Final = {
    "loss",
    "duplicate",
    "reorder",
    "corrupt",
    "gilbert_elliott",
    "drop_first",
    "blackhole",
}
# Seconds, with --wire: a lost segment is retransmitted after 1 s or more (RFC 6298, sections 2.1 and 5.5).
_WIRE_TIMEOUT: Final = 20.0


@click.group(cls=OrderedGroup, context_settings=_HELP)
def check() -> None:
    """Test a client or a server, in any language, against a contract; or a proxy between the two.

    \b
    For example:
      bothends check server --contract upper-tcp -- python3 server.py {port}
      bothends check server --contract upper-tcp --endpoint tcp://127.0.0.1:12000
      bothends check client --contract upper-tcp -- ./client {host} {port}
      bothends check proxy -- ./proxy {port} {upstream_host} {upstream_port}
      bothends check explain tcp-split-write
    """


def _contract_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the verbs that test a program by a contract."""
    text = "Expected behaviour: a built-in contract, or a file."
    return click.option("--contract", required=True, metavar="NAME", help=text)(allow_code_option(command))


def _judge_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the verbs that test one program."""
    for option in reversed(
        (
            click.option("--only", multiple=True, metavar="CASE", help="Only this case; may be repeated."),
            click.option("--thorough", is_flag=True, help="Also run slow and large cases."),
            click.option(
                "--jobs", type=click.IntRange(1, 64), metavar="N",
                help="Number of cases run in parallel; default 6.",
            ),
            click.option(
                "--patience", "timeout", type=click.FloatRange(0.1, 600), metavar="S",
                help="Timeout of a step in seconds; default 3, longer on a busy machine, 20 with --wire.",
            ),
            click.option(
                "--report", "reports", multiple=True, metavar="FORMAT[=FILE]",
                help=f"{', '.join(REPORT_FORMATS)}; default text; may be repeated.",
            ),
            click.option(
                "--sandbox", is_flag=True,
                help="Restrict the program: loopback, toolchain and its own folder only, limited memory.",
            ),
            click.option(
                "--folder", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="FOLDER",
                help="With --sandbox: the program's own folder; default: that of the files in COMMAND.",
            ),
            click.option(
                "--wire", default="", metavar="TOXICS",
                help="Test over a faulty network, such as loss=5%,delay=40ms: the toxics of bothends wire.",
            ),
            click.option(
                "--trace", type=click.Path(path_type=Path), metavar="FOLDER",
                help="Repeat each failed case under trace, and write a page with its calls and packets.",
            ),
            click.option("--json", "as_json", is_flag=True, help="Same as --report json."),
            click.option("-v", "--verbose", is_flag=True, help="Show the transcript of each case."),
            inside_option,
            click.argument("command", nargs=-1, type=click.UNPROCESSED),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@check.command(context_settings=_HELP)
@click.option(
    "--endpoint",
    default="",
    metavar="URL",
    help="The server's endpoint. Without COMMAND: that of a running server.",
)
@click.option(
    "--input",
    "lines",
    multiple=True,
    metavar="LINE",
    help="Line typed on the server's standard input, such as {port}; may be repeated.",
)
@_contract_options
@click.option(
    "--against",
    default="",
    metavar="COMMAND",
    help="Correct server that runs beside this one, for what the contract takes from a reference.",
)
@_judge_options
def server(
    contract: str,
    allow_code: bool,
    endpoint: str,
    lines: tuple[str, ...],
    against: str,
    command: tuple[str, ...],
    **options: Any,
) -> None:
    """Test a server: start it for each case, or use a running one.

    {port}, {host}, {path} and {dir} in COMMAND and LINE are replaced. Without {port}, bothends detects
    where the server listens (the environment variable PORT suggests a port).

    \b
    For example:
      bothends check server --contract upper-tcp -- ./server {port}
    """
    from bothends.check import contract as contracts
    from bothends.check.runner import SuiteRun
    from bothends.check.subjects.server_under_test import ServerUnderTest
    from bothends.check.suites.registry import cases, suite_for

    agreed = contracts.load(contract, allow_code=allow_code)
    suite = suite_for(agreed, "server")
    subject = ServerUnderTest(agreed, command, endpoint, typed="\n".join(lines))
    if against:
        subject.reference = ServerUnderTest(agreed, split_command(against))
    elif agreed.needs_reference:
        raise UsageError(f"{agreed.name} compares with a reference server: give its command with --against")
    _judge(SuiteRun(subject, cases(suite, agreed), suite), **options)


@check.command(context_settings=_HELP)
@_contract_options
@_judge_options
def client(contract: str, allow_code: bool, command: tuple[str, ...], **options: Any) -> None:
    """Test a client against correct and faulty servers: the data it sends, its output and its exit status.

    {host} and {port} in COMMAND are replaced ({path} for a UNIX socket). The client reads its messages as
    lines from standard input, or takes one as an argument: {message}.

    \b
    For example:
      bothends check client --contract upper-tcp -- ./client {host} {port}
    """
    from bothends.check import contract as contracts
    from bothends.check.runner import SuiteRun
    from bothends.check.subjects.client_under_test import ClientUnderTest
    from bothends.check.suites.registry import cases, suite_for

    agreed = contracts.load(contract, allow_code=allow_code)
    suite = suite_for(agreed, "client")
    _judge(SuiteRun(ClientUnderTest(agreed, command), cases(suite, agreed), suite), **options)


@check.command(context_settings=_HELP)
@click.option(
    "--transport",
    type=click.Choice(("tcp", "udp")),
    default="tcp",
    show_default=True,
    help="What it passes on: streams or datagrams.",
)
@click.option(
    "--template",
    "templates",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Configuration with placeholders, written to {dir}/FILE before each start; may be repeated.",
)
@click.option("--endpoint", default="", metavar="URL", help="Where it listens, if that is fixed.")
@click.option("--upstream", default="", metavar="URL", help="What it connects to, if that is fixed.")
@click.option("--reload", "reload_signal", default="", metavar="SIGNAL", help="Reloads its configuration.")
@_judge_options
def proxy(
    transport: Literal["tcp", "udp"],
    templates: tuple[Path, ...],
    endpoint: str,
    upstream: str,
    reload_signal: str,
    command: tuple[str, ...],
    **options: Any,
) -> None:
    """Test a proxy: bothends is the client before it, and the server behind it.

    {port}, {upstream_host}, {upstream_port}, {upstream} (HOST:PORT) and {dir} are replaced in COMMAND and in
    the templates. A proxy with fixed ports is started in a network namespace of its own. Without COMMAND, one
    that is running at --endpoint is tested, with a server at --upstream.

    \b
    For example:
      bothends check proxy -- ./proxy {port} {upstream_host} {upstream_port}
      bothends check proxy --template haproxy.cfg -- haproxy -f {dir}/haproxy.cfg
    """
    from bothends.check.runner import SuiteRun
    from bothends.check.subjects.proxy_under_test import ProxyUnderTest, proxy_contract
    from bothends.check.suites.registry import cases

    contract = proxy_contract(transport)
    subject = ProxyUnderTest(
        contract,
        command,
        endpoint,
        upstream,
        {each.name: read_text(each) for each in templates},
        _signal_number(reload_signal),
    )
    suite = "proxy" if transport == "tcp" else "udp-proxy"
    _judge(SuiteRun(subject, cases(suite), suite), **options)


def _signal_number(name: str) -> int:
    """Return the number of a signal, such as "HUP" or "SIGHUP"; 0 for ""."""
    if not name:
        return 0
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    known = {each.name: each for each in signal.Signals}
    if full not in known:
        nearest = suggest.nearest(full, known)
        raise UnknownName("signal", name, nearest, "for example SIGHUP")
    return known[full]


def _judge(
    run: Any,
    *,
    only: tuple[str, ...],
    thorough: bool,
    jobs: int | None,
    timeout: float | None,
    reports: tuple[str, ...],
    as_json: bool,
    sandbox: bool,
    folder: Path | None,
    wire: str,
    trace: Path | None,
    verbose: bool,
    inside: bool,
) -> None:
    from bothends.check.sandbox.launcher import enter
    from bothends.check.subjects.own_network import become_able
    from bothends.check.subjects.process import subreaper
    from bothends.check.suites.registry import check_selection

    check_selection(run.subject.contract, run.suite, only)
    if inside:
        remove_inside_option()
    elif wire:
        _rerun_on_wire(wire, run, sandbox=sandbox)
    wanted = parse_reports((*reports, "json") if as_json else reports or ("text",), REPORT_FORMATS)
    run.only, run.thorough, run.trace = only, thorough, trace
    if trace is not None:
        from bothends.trace.capture.tracees import find_strace

        find_strace()
        _make_folder(trace)
    run.jobs = jobs or run.jobs
    run.timeout = timeout or (_WIRE_TIMEOUT if wire else run.timeout)
    if sandbox and not run.subject.is_spawned:
        raise UsageError("--sandbox needs a program that bothends starts: give its command after --")
    if sandbox and trace is not None:
        raise UsageError("--trace and --sandbox exclude each other: the sandbox shows no tracer")
    if getattr(run.subject, "typed", "") and not run.subject.is_spawned:
        raise UsageError("--input needs a program that bothends starts: give its command after --")
    if folder is not None and not sandbox:
        raise UsageError("--folder needs --sandbox")
    finished: list[CaseOutcome] = []
    try:
        with raise_exit_on_signals(), subreaper(), ProgressLine(len(run.selected_cases())) as progress:

            def show(outcome: CaseOutcome) -> None:
                finished.append(outcome)
                progress.count()
                progress.show(f"{outcome.verdict.value}  {outcome.case}")

            if sandbox:
                run.subject.sandbox = enter(folder=folder)
                if (reference := getattr(run.subject, "reference", None)) is not None:
                    reference.apart = True  # a program in the sandbox must not hand on its replies
            elif inside:
                run.subject.own_network = False  # because every packet must pass the wire
            elif run.subject.wants_own_network():
                become_able(run.subject.can_start)
            run.progress = show
            result: SuiteResult = asyncio.run(run_until_signal(run.run()))
    except (KeyboardInterrupt, SystemExit):
        _show_finished(finished, len(run.selected_cases()))
        raise
    for format_name, file in wanted:
        _write_report(result, format_name, file, verbose=verbose)
    if all(file is not None for _, file in wanted):  # nothing on standard output says how it went
        from bothends.cli.check.output import show_score

        show_score(result, sys.stderr)
    if result.failed:
        raise click.exceptions.Exit(1)


def _show_finished(outcomes: Sequence[CaseOutcome], total: int) -> None:
    """Print the verdicts that an interrupted run has reached."""
    from bothends.cli.check.output import show_verdicts

    if outcomes:
        show_verdicts(outcomes)
        terminal.note(f"interrupted: {len(outcomes)} of {total} cases have a verdict", "warning")


def _rerun_on_wire(toxics: str, run: Any, *, sandbox: bool) -> None:
    """Run this command line again in a host of a new wire, where every packet passes the toxics."""
    if not run.subject.is_spawned or sandbox:
        raise UsageError("--wire needs a program that bothends starts, and excludes --sandbox")
    path = WirePath(toxics)
    if run.subject.contract.is_datagram and path.toxics.keys() & _LOSSY_TOXICS:
        reason = "a datagram lost or duplicated by the wire cannot be told apart from one by the program"
        raise UsageError(f"{reason}; use delay, jitter and rate only")
    rerun_on_wire(path, "host", quiet=True)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemCallFailed("make", str(folder), error.errno or 0) from error


def _write_report(result: SuiteResult, format_name: str, file: Path | None, *, verbose: bool) -> None:
    from bothends.check import reports

    if format_name == "text" and file is None:
        from bothends.cli.check.output import show

        show(result, verbose=verbose)
        return
    text = reports.render(result, format_name)
    write_report(text, format_name, file)


_scenes_option = click.option("--contract", metavar="NAME", help="With the cases of this contract's scenes.")


@check.command("list", context_settings=_HELP)
@click.argument("suite", required=False)
@_scenes_option
@allow_code_option
def list_cases(suite: str | None, contract: str | None, allow_code: bool) -> None:
    """List the cases of a suite, or of all suites.

    With --contract: those for servers under the contract, its scenes included.
    """
    from bothends.check import contract as contracts
    from bothends.check.suites.registry import SUITES, cases, suite_for

    agreed = contracts.load(contract, allow_code=allow_code) if contract else None
    names = [suite] if suite else [suite_for(agreed, "server")] if agreed else list(SUITES)
    rows = [(case.id, case.stimulus, case.expectation) for name in names for case in cases(name, agreed)]
    terminal.table(("case", "test", "expected"), rows)


@check.command(context_settings=_HELP)
def contracts() -> None:
    """List the built-in contracts."""
    from bothends.check import contract

    rows = []
    for name in contract.builtin_names():
        one = contract.load(name)
        rows.append((name, one.transport, one.framing, "yes" if one.persistent else "-", one.summary))
    terminal.table(("contract", "transport", "framing", "persistent", "description"), rows)


@check.command(context_settings=_HELP)
@click.argument("case")
@_scenes_option
@allow_code_option
def explain(case: str, contract: str | None, allow_code: bool) -> None:
    """Explain a case: the test, the expected behaviour, and why it matters."""
    from bothends.check import contract as contracts
    from bothends.check.requirements import REQUIREMENTS
    from bothends.check.suites.registry import SUITES, find_case

    agreed = contracts.load(contract, allow_code=allow_code) if contract else None
    suite, found = find_case(case, agreed)
    terminal.show(terminal.styled(found.id, "strong", sys.stdout) + f"  (suite {suite}: {SUITES[suite][1]})")
    for head, text in (
        ("test", found.stimulus),
        ("expected", found.expectation),
        ("why", found.why),
        ("common mistake", found.likely_cause),
        ("skipped if", "; ".join(REQUIREMENTS[name] for name in found.requires) or "-"),
        ("requires", ", ".join(found.after) or "-"),
    ):
        terminal.show_item(head, text, indent=2, heading_width=20)


check.add_command(batch)
check.add_command(record)
check.add_command(gradescope)
check.add_command(classroom)
