"""`bothends check`: judge a client or a server, in any language, by what it does on its sockets."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bothends.cli import terminal
from bothends.cli.check.batch import batch
from bothends.cli.termination import raise_exit_on_signals, run_until_signal
from bothends.errors import SystemCallFailed, UsageError
from bothends.osutil.reexec import self_command

if TYPE_CHECKING:
    from bothends.check.results import CaseOutcome, SuiteResult

_HELP: Final = {"help_option_names": ["-h", "--help"]}
_LOSSY_TOXICS: Final = {
    "loss",
    "duplicate",
    "reorder",
    "corrupt",
    "gilbert-elliott",
    "drop-first",
    "blackhole",
}
REPORT_FORMATS: Final = ("text", "json", "junit", "tap", "gradescope", "html")


@click.group(context_settings=_HELP)
def check() -> None:
    """Judge a client or a server, in any language, against a contract.

    \b
    For example:
      bothends check server --contract upper-tcp -- python3 server.py {port}
      bothends check server --contract upper-tcp --endpoint tcp://127.0.0.1:12000
      bothends check client --contract upper-tcp -- ./client {host} {port}
      bothends check explain tcp-split-write
    """


def _judge_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of whatever judges one program."""
    for option in reversed(
        (
            click.option("--contract", required=True, metavar="NAME", help="What it should do."),
            click.option("--only", multiple=True, metavar="CASE", help="Only this case; may be repeated."),
            click.option("--thorough", is_flag=True, help="Also the cases that take long or much."),
            click.option("--jobs", type=click.IntRange(1, 64), metavar="N", help="Cases at once; default 6."),
            click.option(
                "--patience", type=click.FloatRange(0.1, 600), metavar="S",
                help="Seconds that a wrong program is waited for; default 3, more on a busy machine.",
            ),
            click.option(
                "--report", "reports", multiple=True, metavar="FORM[=FILE]",
                help=f"{', '.join(REPORT_FORMATS)}; default text; may be repeated.",
            ),
            click.option(
                "--sandbox", is_flag=True,
                help="Let the program do little: loopback only, files read-only, bounded memory.",
            ),
            click.option(
                "--wire", default="", metavar="TOXICS",
                help='Over a bad path, as "loss=5%,delay=40ms": the words of bothends wire.',
            ),
            click.option(
                "--trace", type=click.Path(path_type=Path), metavar="FOLDER",
                help="For each FAIL a page with its calls and packets, of a run of its own.",
            ),
            click.option("--json", "as_json", is_flag=True, help="The same as --report json."),
            click.option("-v", "--verbose", is_flag=True, help="Show what was said, case by case."),
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
    help="Where it listens; without a command, one that runs already.",
)
@_judge_options
def server(contract: str, endpoint: str, command: tuple[str, ...], **options: Any) -> None:
    """Judge a server: start it for each case, or ask one that runs.

    {port}, {host}, {path} and {dir} in COMMAND are filled in; where there is no {port} it is found out where
    it listens (the variable PORT suggests a port).

    \b
    For example:
      bothends check server --contract upper-tcp -- ./server {port}
    """
    from bothends.check import contract as contracts
    from bothends.check.runner import SuiteRun
    from bothends.check.subjects.server_under_test import ServerUnderTest
    from bothends.check.suites.registry import cases, suite_for

    agreed = contracts.load(contract)
    suite = suite_for(agreed, "server")
    _judge(SuiteRun(ServerUnderTest(agreed, command, endpoint), cases(suite), suite), **options)


@check.command(context_settings=_HELP)
@_judge_options
def client(contract: str, command: tuple[str, ...], **options: Any) -> None:
    """Judge a client: play its server, good and bad, and look at what it sends, prints and exits with.

    {host} and {port} in COMMAND are filled in ({path} for a UNIX socket, {message} if it takes its message
    so); messages are lines on its standard input.

    \b
    For example:
      bothends check client --contract upper-tcp -- ./client {host} {port}
    """
    from bothends.check import contract as contracts
    from bothends.check.runner import SuiteRun
    from bothends.check.subjects.client_under_test import ClientUnderTest
    from bothends.check.suites.registry import cases, suite_for

    agreed = contracts.load(contract)
    suite = suite_for(agreed, "client")
    _judge(SuiteRun(ClientUnderTest(agreed, command), cases(suite), suite), **options)


def _judge(
    run: Any,
    *,
    only: tuple[str, ...],
    thorough: bool,
    jobs: int | None,
    patience: float | None,
    reports: tuple[str, ...],
    as_json: bool,
    sandbox: bool,
    wire: str,
    trace: Path | None,
    verbose: bool,
) -> None:
    from bothends.check.sandbox.launcher import enter
    from bothends.check.subjects.process import subreaper
    from bothends.check.suites.registry import find_case

    for case in only:
        suite, _ = find_case(case)
        if suite != run.suite:
            raise UsageError(f"{case} is a case of the suite {suite!r}: this contract has {run.suite!r}")
    if wire:
        _reexec_behind_wire(wire, run, patience, sandbox=sandbox)
    wanted = _parse_reports((*reports, "json") if as_json else reports or ("text",))
    run.only, run.thorough, run.trace = only, thorough, trace
    if trace is not None:
        from bothends.trace.capture.tracees import find_strace

        find_strace()
        _make_folder(trace)
    run.jobs = jobs or run.jobs
    run.timeout = patience or run.timeout
    if sandbox and not run.subject.is_spawned:
        raise UsageError("the sandbox is for a program that is started here: give its command after --")
    with raise_exit_on_signals(), subreaper(), _Progress(len(run.selected_cases())) as progress:
        if sandbox:
            run.subject.sandbox = enter()
        run.progress = progress.show
        result: SuiteResult = asyncio.run(run_until_signal(run.run()))
    for form, file in wanted:
        _write_report(result, form, file, verbose=verbose)
    if result.failed:
        raise click.exceptions.Exit(1)


def _reexec_behind_wire(toxics: str, run: Any, patience: float | None, *, sandbox: bool) -> None:
    """Become `bothends wire` with the same command line, in a host of its own: there every packet meets the
    toxics. Comes back only with an error.
    """
    if not run.subject.is_spawned or sandbox:
        raise UsageError("--wire is for a program that is started here, and not together with --sandbox")
    pairs = [each.partition("=") for each in toxics.split(",")]
    if run.subject.contract.is_datagram and {name for name, _, _ in pairs} & _LOSSY_TOXICS:
        reason = "datagrams that the path loses or doubles can't be told from those that the program does"
        raise UsageError(f"{reason}; delay, jitter and rate are fine")
    switches = [word for name, _, value in pairs for word in (f"--{name.strip()}", value.strip())]
    words = sys.argv[1:]
    at = next(n for n, word in enumerate(words) if word.startswith("--wire"))
    del words[at : at + (1 if "=" in words[at] else 2)]
    if patience is None:  # what is lost is sent again after a second or more (RFC 6298, 2.1 and 5.5)
        words[2:2] = ["--patience", "20"]
    os.execv(sys.executable, [*self_command(), "wire", "--quiet", *switches, "--", *self_command(), *words])


def _parse_reports(words: Sequence[str]) -> list[tuple[str, Path | None]]:
    found = []
    for word in words:
        form, _, file = word.partition("=")
        if form not in REPORT_FORMATS:
            raise UsageError(f"there is no report {form!r}; there are {', '.join(REPORT_FORMATS)}")
        if file and not Path(file).absolute().parent.is_dir():  # known now, and not after a minute of judging
            raise SystemCallFailed("write", file, errno.ENOENT)
        found.append((form, Path(file) if file else None))
    return found


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemCallFailed("make", str(folder), error.errno or 0) from error


def _write_report(result: SuiteResult, form: str, file: Path | None, *, verbose: bool) -> None:
    from bothends.check import reports

    if form == "text" and file is None:
        from bothends.cli.check.output import show

        show(result, verbose=verbose)
        return
    text = reports.render(result, form)
    if file is None:
        click.echo(text, nl=not text.endswith("\n"))
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SystemCallFailed("write", str(file), error.errno or 0) from error
    terminal.note(f"{form}: {file}")


class _Progress:
    """One line at a terminal that says how far it is; nothing elsewhere."""

    def __init__(self, cases: int) -> None:
        self._cases = cases
        self._done = 0
        self._shown = terminal.is_terminal(sys.stderr)

    def show(self, outcome: CaseOutcome) -> None:
        """One more case has ended."""
        self._done += 1
        if self._shown:
            sys.stderr.write(f"\r\x1b[K{self._done}/{self._cases}  {outcome.verdict.value}  {outcome.case}")
            sys.stderr.flush()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


@check.command("list", context_settings=_HELP)
@click.argument("suite", required=False)
def list_cases(suite: str | None) -> None:
    """List the cases of a suite, or of all."""
    from bothends.check.suites.registry import SUITES, cases

    rows = [
        (case.id, case.stimulus, case.expectation)
        for name in ([suite] if suite else SUITES)
        for case in cases(name)
    ]
    terminal.table(("case", "what is done", "what a right program does"), rows)


@check.command(context_settings=_HELP)
def contracts() -> None:
    """List the contracts that are built in."""
    from bothends.check import contract

    rows = []
    for name in contract.builtin_names():
        one = contract.load(name)
        rows.append((name, one.transport, one.framing, "yes" if one.persistent else "-", one.summary))
    terminal.table(("contract", "transport", "framing", "persistent", "what it is"), rows)


@check.command(context_settings=_HELP)
@click.argument("case")
def explain(case: str) -> None:
    """Tell what a case is about."""
    from bothends.check.requirements import REQUIREMENTS
    from bothends.check.suites.registry import SUITES, find_case

    suite, found = find_case(case)
    click.echo(terminal.styled(found.id, "strong", sys.stdout) + f"  (suite {suite}: {SUITES[suite][1]})")
    for head, text in (
        ("what is done", found.stimulus),
        ("a right program", found.expectation),
        ("why", found.why),
        ("the classic mistake", found.likely_cause),
        ("not asked where", "; ".join(REQUIREMENTS[name][1] for name in found.requires) or "-"),
        ("asked after", ", ".join(found.after) or "-"),
    ):
        click.echo(f"  {head:<20} {text}")


check.add_command(batch)
