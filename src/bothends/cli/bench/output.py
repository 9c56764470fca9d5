"""Output shared by the bench verbs: options for results, formats, files, and a progress bar."""

from __future__ import annotations

import contextlib
import datetime
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bothends.cli import terminal
from bothends.errors import SystemCallFailed, Unavailable
from bothends.escaping import escape_line
from bothends.install_hints import install_command

if TYPE_CHECKING:
    from bothends.bench.generators.base import Progress, ProgressCallback
    from bothends.bench.results import BenchEntry, Document

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--json", "form", flag_value="json", help="Print JSON, for `bench compare`."),
    click.option("--csv", "form", flag_value="csv", help="Print CSV, one row per round."),
    click.option("--markdown", "form", flag_value="markdown", help="Print a Markdown table."),
    click.option("--hgrm", metavar="FILE", type=click.Path(), help="Write an HdrHistogram log."),
    click.option("--html", metavar="FILE", type=click.Path(), help="Write an HTML page with plots."),
)


def output_options(function: F) -> F:
    """Add the options that select how results are printed and saved."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def make_document(entries: list[BenchEntry], **more: Any) -> Document:
    """Return a document of results, with the host and the command line to reproduce them."""
    from bothends.bench.host_info import host_info
    from bothends.bench.results import VERSION, Document

    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Document(VERSION, now, shlex.join(["bothends", *sys.argv[1:]]), host_info(), entries, **more)


def show(document: Document, form: str | None, *, as_table: bool = False) -> None:
    """Print a document on stdout.

    `form` is "json", "csv", "markdown", or None for text: of the first entry, or `as_table` of all.
    """
    from bothends.bench.report import text
    from bothends.bench.results import encode

    match form:
        case "json":
            terminal.show(encode(document).decode(), end="")
        case "csv":
            terminal.show(text.as_csv(document), end="")
        case "markdown":
            terminal.show(text.as_markdown(document), end="")
        case _ if not as_table:
            entry = document.entries[0]
            terminal.show(terminal.styled(entry.target, "strong", sys.stdout))
            for label, value in text.summary_lines(entry):
                bad = label == "ended early" or "the limit" in value or (label == "verified" and entry.failed)
                terminal.show(
                    f"  {label:<20}  {terminal.styled(value, 'warning' if bad else '', sys.stdout)}"
                )
            for note in document.notes:
                terminal.show(f"  {note}")
        case _:
            terminal.table(*text.table(document, document.entries))
            for remark in text.remarks(document):
                terminal.note(remark)


def write_files(document: Document, hgrm: str | None, html: str | None) -> None:
    """Write the requested files. Raises SystemCallFailed."""
    from bothends.bench.report import text

    if hgrm is not None:
        _write(hgrm, text.as_hdr_log(document))
    if html is not None:
        from bothends.bench.report.html import render_html

        _write(html, render_html(document))


def check_writable(hgrm: str | None, html: str | None) -> None:
    """Check before the measurement that the requested files can be written.

    Raises:
        SystemCallFailed: a file cannot be written.
        Unavailable: a package for plots is missing.
    """
    if html is not None:
        try:
            import bothends.bench.report.html  # noqa: F401
        except ModuleNotFoundError as error:
            reason = f"package {error.name} is not installed"
            raise Unavailable("draw", "plots", reason=reason, hint=install_command("plots")) from error
    for path in filter(None, (hgrm, html)):
        try:
            with open(path, "ab"):
                pass
        except OSError as error:
            raise SystemCallFailed("write", path, error.errno or 0) from error


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise SystemCallFailed("write", path, error.errno or 0) from error


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], ProgressCallback | None]]:
    """Show a progress bar on stderr, if that is a terminal.

    Yields a function that takes the title of a run, starts its bar, and returns the callback for progress.
    """
    if not terminal.is_terminal(sys.stderr):
        yield lambda _: None
        return
    import rich.progress

    columns = (
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.BarColumn(),
        rich.progress.TextColumn("{task.completed:.1f} of {task.total:.1f} s  {task.fields[counts]}"),
    )
    with rich.progress.Progress(*columns, console=terminal.live_console(), transient=True) as bar:
        task = bar.add_task("", total=1.0, counts="")

        def start(title: str) -> ProgressCallback:
            def update(progress: Progress) -> None:
                faults = f", {progress.faults:,} faults" if progress.faults else ""
                counts = f"{progress.completed:,} replies{faults}"
                bar.update(task, completed=progress.elapsed, total=progress.total, counts=counts)

            bar.update(task, description=escape_line(title), completed=0, counts="")
            return update

        yield start
