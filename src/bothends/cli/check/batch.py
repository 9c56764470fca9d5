"""`bothends check batch`: test many programs, and summarize the results."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bothends.cli import terminal
from bothends.cli.check.options import allow_code_option
from bothends.cli.termination import raise_exit_on_signals
from bothends.errors import ServiceError, SystemCallFailed, UsageError
from bothends.textfile import read_text

if TYPE_CHECKING:
    from bothends.check.batch.grading import BatchSettings


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument(
    "folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--contract", required=True, metavar="NAME", help="Expected behaviour: a built-in contract, or a file."
)
@allow_code_option
@click.option("--role", type=click.Choice(["server", "client"]), default="server", help="Default: server.")
@click.option(
    "--out", type=click.Path(path_type=Path), default="results", metavar="FOLDER",
    help="Folder for results; a later run reuses the results in it. Default: results.",
)  # fmt: skip
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Programs in parallel; default: one per processor.",
)
@click.option(
    "--cluster",
    default="",
    metavar="URL",
    help="Address of a dask.distributed scheduler, such as tcp://host:8786.",
)
@click.option("--no-sandbox", is_flag=True, help="Run the programs without a sandbox.")
@click.option("--thorough", is_flag=True, help="Also run slow and large cases.")
def batch(
    folders: tuple[Path, ...],
    contract: str,
    allow_code: bool,
    role: str,
    out: Path,
    workers: int | None,
    cluster: str,
    no_sandbox: bool,
    thorough: bool,
) -> None:
    """Test many programs, one in each folder, and summarize the results.

    A program is built and run as its check.toml says, or else as is usual for its language.

    \b
    For example:
      bothends check batch submissions/*/ --contract upper-tcp
    """
    from bothends.check import contract as contracts
    from bothends.check.batch.contract_copy import find_files
    from bothends.check.batch.grading import BatchSettings, JudgedSubmission, judge_all, submission_name
    from bothends.check.reports.batch_report import as_csv, as_html, common_failures

    agreed = contracts.load(contract, allow_code=allow_code)
    if agreed.needs_reference:
        raise UsageError(f"{agreed.name} compares with a reference server, which a batch does not run")
    names = [submission_name(folder) for folder in folders]
    if duplicates := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"two folders are named {min(duplicates)}: results are named after their folders")
    settings = BatchSettings(
        role,
        read_text(Path(contract)) if contracts.is_file_name(contract) else contract,
        sandbox=not no_sandbox,
        thorough=thorough,
        allow_code=allow_code,
        contract_files=find_files(agreed),
    )
    _load_copy(settings)

    def progress(submission: JudgedSubmission, remaining: int) -> None:
        points = f"{submission.result.points:g} of {submission.result.max_points:g} points"
        terminal.note(f"{submission.name}: {points}; {remaining} left")

    def write_tables(judged: list[JudgedSubmission]) -> None:
        tables = (("results.csv", as_csv(judged)), ("results.html", as_html(judged, agreed.name)))
        for file, content in tables:
            try:
                (out / file).write_text(content, encoding="utf-8", errors="backslashreplace")
            except OSError as error:
                raise SystemCallFailed("write", str(out / file), error.errno or 0) from error

    workers = workers or os.cpu_count() or 1
    with raise_exit_on_signals():
        found = judge_all(
            folders,
            settings,
            out,
            workers=workers,
            cluster=cluster,
            progress=progress,
            stopped=write_tables,
            warn=lambda text: terminal.note(text, "warning"),
        )
    write_tables(found)
    rows = [
        (
            one.name,
            one.language or "-",
            f"{one.result.points:g} of {one.result.max_points:g}",
            _failed_cases(one),
            one.remark or "-",
        )
        for one in found
    ]
    heads = ("name", "language", "points", "failed", "remark")
    columns = len(heads) if any(one.remark for one in found) else -1
    terminal.table(heads[:columns], [row[:columns] for row in rows])
    if mistakes := common_failures(found):
        terminal.show("\nmost common mistakes:")
        for case, mistake, count in mistakes[:5]:
            terminal.show(f"  {count:4}  {terminal.styled(case, 'strong', sys.stdout)}: {mistake}")
    if any(one.result.failed for one in found):
        raise click.exceptions.Exit(1)


def _load_copy(settings: BatchSettings) -> None:
    """Load a copy of the contract, to report once what would make every submission fail."""
    from bothends.check import contract as contracts
    from bothends.check.batch.contract_copy import write_copy
    from bothends.osutil.scratch import scratch_folder

    if not settings.contract_files:
        return
    with scratch_folder("contract") as folder:
        copy = write_copy(folder, settings.contract, settings.contract_files)
        try:
            contracts.read(copy, allow_code=settings.allow_code)
        except ServiceError as error:
            reason = error.reason.replace(f"{copy.parent}/", "")
            hint = "modules beside the contract are copied with it, other files are not"
            raise ServiceError(settings.contract_files[0][0], f"a copy fails: {reason}", hint) from error


def _failed_cases(one: object) -> str:
    from bothends.check.batch.grading import JudgedSubmission
    from bothends.check.case import Verdict

    assert isinstance(one, JudgedSubmission)
    failed = [each.case for each in one.result.outcomes if each.verdict is Verdict.FAIL]
    return ", ".join(failed[:3]) + (f" and {len(failed) - 3} more" if len(failed) > 3 else "") or "-"
