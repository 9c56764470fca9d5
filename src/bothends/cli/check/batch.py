"""`bothends check batch`: test many programs, and summarize the results."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bothends.cli import terminal
from bothends.cli.check.options import REPORT_FORMATS, allow_code_option, split_command
from bothends.cli.termination import raise_exit_on_signals
from bothends.errors import ServiceError, SystemCallFailed, UsageError
from bothends.textfile import read_text

if TYPE_CHECKING:
    from bothends.check.batch.grading import BatchSettings, JudgedSubmission
    from bothends.check.contract import Contract


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
    "--against", default="", metavar="COMMAND",
    help="Correct server that runs beside each program, for what the contract takes from a reference.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), default="results", metavar="FOLDER",
    help="Folder for results; a later run reuses the results in it. Default: results.",
)  # fmt: skip
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Programs in parallel; default: two per processor.",
)
@click.option(
    "--cluster",
    default="",
    metavar="URL",
    help="Address of a dask.distributed scheduler, such as tcp://host:8786.",
)
@click.option("--no-sandbox", is_flag=True, help="Run the programs without a sandbox.")
@click.option("--thorough", is_flag=True, help="Also run slow and large cases.")
@click.option("--only", multiple=True, metavar="CASE", help="Only this case; may be repeated.")
@click.option(
    "--report", "formats", multiple=True, type=click.Choice(REPORT_FORMATS), metavar="FORMAT",
    help=f"Also a report on each program, beside its page: {', '.join(REPORT_FORMATS)}; may be repeated.",
)  # fmt: skip
@click.option(
    "--trace", is_flag=True,
    help="Repeat each failed case under trace, and write a page about its calls. Needs --no-sandbox.",
)  # fmt: skip
@click.option(
    "--compare", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="FOLDER",
    help="Compare with the results of an earlier batch in this folder.",
)  # fmt: skip
def batch(
    folders: tuple[Path, ...],
    contract: str,
    allow_code: bool,
    role: str,
    against: str,
    out: Path,
    workers: int | None,
    cluster: str,
    no_sandbox: bool,
    thorough: bool,
    only: tuple[str, ...],
    formats: tuple[str, ...],
    trace: bool,
    compare: Path | None,
) -> None:
    """Test many programs, one in each folder, and summarize the results.

    A program is built and run as its check.toml says, or else as is usual for its language.

    \b
    For example:
      bothends check batch submissions/*/ --contract upper-tcp
    """
    from bothends.check import contract as contracts
    from bothends.check.batch.contract_copy import find_files
    from bothends.check.batch.grading import BatchSettings, judge_all, submission_name
    from bothends.check.reports.batch_report import as_csv, as_html, common_failures
    from bothends.osutil.scratch import remove_leftovers

    agreed = contracts.load(contract, allow_code=allow_code)
    if agreed.needs_reference and not against:
        raise UsageError(f"{agreed.name} compares with a reference server: give its command with --against")
    if against and role == "client":
        raise UsageError("--against compares servers, and --role is client")
    _check_options(agreed, role, only, trace=trace, sandbox=not no_sandbox)
    earlier = _load_results(compare) if compare is not None else {}
    names = [submission_name(folder) for folder in folders]
    if duplicates := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"two folders are named {min(duplicates)}: results are named after their folders")
    reference, reference_digest = _reference(against)
    settings = BatchSettings(
        role,
        read_text(Path(contract)) if contracts.is_file_name(contract) else contract,
        sandbox=not no_sandbox,
        thorough=thorough,
        allow_code=allow_code,
        contract_files=find_files(agreed),
        only=only,
        trace=trace,
        against=reference,
        against_digest=reference_digest,
    )
    _load_copy(settings)

    def progress(submission: JudgedSubmission, remaining: int) -> None:
        points = f"{submission.result.points:g} of {submission.result.max_points:g} points"
        terminal.note(f"{submission.name}: {points}; {remaining} left")

    def write_tables(judged: list[JudgedSubmission]) -> None:
        _write(out / "results.csv", as_csv(judged))
        _write(out / "results.html", as_html(judged, agreed.name))
        _write_students(out, judged, formats)

    # A program under test waits most of the time, for the timeouts of its cases.
    workers = workers or 2 * (os.cpu_count() or 1)
    remove_leftovers()  # of a batch that was killed; this one may reuse all results and make no folder
    with raise_exit_on_signals():
        found = judge_all(
            folders, settings, out, workers=workers, cluster=cluster, progress=progress, stopped=write_tables,
            remark=lambda text: terminal.note(text, "warning"),
        )  # fmt: skip
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
    if compare is not None:
        _show_comparison(out, earlier, found, agreed.name)
    if any(one.result.failed for one in found):
        raise click.exceptions.Exit(1)


def _reference(command: str) -> tuple[str, str]:
    """Return a reference server's command with absolute paths, and a digest of the files that it names."""
    words = [str(Path(word).absolute()) if Path(word).is_file() else word for word in split_command(command)]
    digest = hashlib.sha256()
    for path in (Path(word) for word in words if Path(word).is_file()):
        digest.update(path.read_bytes())
    return shlex.join(words), digest.hexdigest() if words else ""


def _check_options(agreed: Contract, role: str, only: tuple[str, ...], *, trace: bool, sandbox: bool) -> None:
    from bothends.check.suites.registry import check_selection, suite_for

    check_selection(agreed, suite_for(agreed, "client" if role == "client" else "server"), only)
    if trace and sandbox:
        raise UsageError("--trace needs --no-sandbox: the sandbox shows no tracer")
    if trace:
        from bothends.trace.capture.tracees import find_strace

        find_strace()


def _load_results(folder: Path) -> dict[str, JudgedSubmission]:
    """Return the results of an earlier batch, by the names of the programs.

    Raises:
        UsageError: there are none in the folder.
    """
    from bothends.check.batch.grading import load_previous

    loaded = [load_previous(file) for file in sorted(folder.glob("*.json"))]
    found = {each.name: each for each in loaded if each is not None}
    if not found:
        raise UsageError(f"{folder} has no results of a batch: give the --out of an earlier one")
    return found


def _write(path: Path, content: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise SystemCallFailed("write", str(path), error.errno or 0) from error


def _write_students(out: Path, judged: Sequence[JudgedSubmission], formats: Sequence[str]) -> None:
    """Write a page for each program, and its reports in other formats."""
    from bothends.check.reports import SUFFIXES, render
    from bothends.check.reports.batch_report import STUDENTS_FOLDER, as_student_html

    for one in judged:
        for format_name in dict.fromkeys(("html", *formats)):
            text = as_student_html(one) if format_name == "html" else render(one.result, format_name)
            _write(out / STUDENTS_FOLDER / f"{one.name}{SUFFIXES[format_name]}", text)


def _show_comparison(
    out: Path, earlier: dict[str, JudgedSubmission], found: Sequence[JudgedSubmission], contract: str
) -> None:
    from bothends.check.reports import comparison

    changes = comparison.compare(earlier, found)
    _write(out / "comparison.csv", comparison.as_csv(changes))
    _write(out / "comparison.html", comparison.as_html(changes, contract))
    different = [each for each in changes if each.is_change]
    terminal.show(f"\ncompared with the earlier batch: {len(different)} of {len(changes)} programs differ")
    if different:
        terminal.table(comparison.HEADS, [each.columns for each in different])


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
