"""`bothends check batch`: judge many programs, and sum up."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from bothends.cli import terminal
from bothends.cli.termination import raise_exit_on_signals
from bothends.errors import SystemCallFailed, UsageError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument(
    "folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("--contract", required=True, metavar="NAME", help="What they should do.")
@click.option("--role", type=click.Choice(["server", "client"]), default="server", help="Default: server.")
@click.option(
    "--out", type=click.Path(path_type=Path), default="results", metavar="FOLDER",
    help="Where results go, and are found again when a batch goes on; default: results.",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(1, 256), metavar="N", help="Programs at once; default: processors."
)
@click.option(
    "--cluster", default="", metavar="URL", help="A dask.distributed scheduler, as tcp://host:8786."
)
@click.option("--no-sandbox", is_flag=True, help="Let the programs do what they like.")
@click.option("--thorough", is_flag=True, help="Also the cases that take long or much.")
def batch(
    folders: tuple[Path, ...],
    contract: str,
    role: str,
    out: Path,
    workers: int | None,
    cluster: str,
    no_sandbox: bool,
    thorough: bool,
) -> None:
    """Judge the program in each folder: built by its check.toml, or by a guess at its language.

    \b
    For example:
      bothends check batch submissions/*/ --contract upper-tcp
    """
    from bothends.check import contract as contracts
    from bothends.check.batch.grading import BatchSettings, JudgedSubmission, judge_all
    from bothends.check.reports.batch_report import as_csv, as_html, common_failures

    agreed = contracts.load(contract)
    names = [folder.resolve().name for folder in folders]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"two folders are called {sorted(twice)[0]}: results are named for their folders")
    text = Path(contract).read_text(encoding="utf-8") if contract.endswith(".toml") else contract
    settings = BatchSettings(role, text, sandbox=not no_sandbox, thorough=thorough)

    def progress(one: JudgedSubmission, left: int) -> None:
        terminal.note(f"{one.name}: {one.result.points:g} of {one.result.most:g} points; {left} left")

    workers = workers or os.cpu_count() or 1
    with raise_exit_on_signals():
        found = judge_all(folders, settings, out, workers=workers, cluster=cluster, progress=progress)
    for file, content in (("results.csv", as_csv(found)), ("results.html", as_html(found, agreed.name))):
        try:
            (out / file).write_text(content, encoding="utf-8")
        except OSError as error:
            raise SystemCallFailed("write", str(out / file), error.errno or 0) from error
    rows = [
        (one.name, one.language or "-", f"{one.result.points:g} of {one.result.most:g}", _failed_cases(one))
        for one in found
    ]
    terminal.table(("name", "language", "points", "failed"), rows)
    if mistakes := common_failures(found):
        click.echo("\nthe commonest mistakes:")
        for case, mistake, count in mistakes[:5]:
            click.echo(f"  {count:4}  {terminal.styled(case, 'strong', sys.stdout)}: {mistake}")
    if any(one.result.failed for one in found):
        raise click.exceptions.Exit(1)


def _failed_cases(one: object) -> str:
    from bothends.check.batch.grading import JudgedSubmission
    from bothends.check.case import Verdict

    assert isinstance(one, JudgedSubmission)
    failed = [each.case for each in one.result.outcomes if each.verdict is Verdict.FAIL]
    return ", ".join(failed[:3]) + (f" and {len(failed) - 3} more" if len(failed) > 3 else "") or "-"
