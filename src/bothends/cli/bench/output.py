"""What the verbs of bench share: the options for their results, how these are shown, and how far they are."""

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

if TYPE_CHECKING:
    from bothends.bench.generators.base import Progress, ProgressCallback
    from bothends.bench.results import BenchEntry, Document

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--json", "form", flag_value="json", help="The result as JSON; `bench compare` reads it."),
    click.option("--csv", "form", flag_value="csv", help="As CSV, a row for each round."),
    click.option("--markdown", "form", flag_value="markdown", help="As a table in Markdown."),
    click.option("--hgrm", metavar="FILE", type=click.Path(), help="Write a log of HdrHistogram's format."),
    click.option("--html", metavar="FILE", type=click.Path(), help="Write a page with plots."),
)


def output_options(function: F) -> F:
    """The options that say how a result is shown and kept."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@contextlib.contextmanager
def require_libraries() -> Iterator[None]:
    """What bench is made of, or one line that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        reason, hint = f"the package {error.name} isn't installed", "pip install 'bothends[bench]'"
        raise Unavailable("run", "bench", reason=reason, hint=hint) from error


def make_document(entries: list[BenchEntry], **more: Any) -> Document:
    """Everything that was measured, with the machine and the command that give it again."""
    from bothends.bench.host_info import host_info
    from bothends.bench.results import VERSION, Document

    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Document(VERSION, now, shlex.join(["bothends", *sys.argv[1:]]), host_info(), entries, **more)


def show(document: Document, form: str | None, *, as_table: bool = False) -> None:
    """The result, on stdout; in words, or `as_table` of entries."""
    from bothends.bench.report import text
    from bothends.bench.results import encode

    match form:
        case "json":
            click.echo(encode(document), nl=False)
        case "csv":
            click.echo(text.as_csv(document), nl=False)
        case "markdown":
            click.echo(text.as_markdown(document), nl=False)
        case _ if not as_table:
            entry = document.entries[0]
            click.echo(terminal.styled(entry.target, "strong", sys.stdout))
            for label, words in text.summary_lines(entry):
                bad = label == "ended early" or "the limit" in words or (label == "verified" and entry.failed)
                click.echo(f"  {label:<20}  {terminal.styled(words, 'warning' if bad else '', sys.stdout)}")
            for note in document.notes:
                click.echo(f"  {note}")
        case _:
            terminal.table(*text.table(document, document.entries))
            for remark in text.remarks(document):
                terminal.note(remark)


def write_files(document: Document, hgrm: str | None, html: str | None) -> None:
    """Write the files that were asked for. Raises SystemRefused."""
    from bothends.bench.report import text

    if hgrm is not None:
        _write(hgrm, text.as_hdr_log(document))
    if html is not None:
        from bothends.bench.report.html import render_html

        _write(html, render_html(document))


def check_writable(hgrm: str | None, html: str | None) -> None:
    """Before anything is measured: can the result be drawn, and written there?

    Raises SystemRefused, Unavailable.
    """
    if html is not None:
        with require_libraries():
            import bothends.bench.report.html  # noqa: F401
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
    """A line on stderr that moves, at a terminal; nothing elsewhere. What it gives is told what begins."""
    if not terminal.is_terminal(sys.stderr):
        yield lambda _: None
        return
    import rich.console
    import rich.markup
    import rich.progress

    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TextColumn("{task.completed:.1f} of {task.total:.1f} s  {task.fields[said]}"),
    )
    console = rich.console.Console(stderr=True, no_color=not terminal.has_colour(sys.stderr))
    with rich.progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0, said="")

        def watching(what: str) -> ProgressCallback:
            def told(how_far: Progress) -> None:
                faults = f", {how_far.faults:,} faults" if how_far.faults else ""
                said = f"{how_far.completed:,} answers{faults}"
                bar.update(task, completed=how_far.elapsed, total=how_far.total, said=said)

            bar.update(task, description=rich.markup.escape(what), completed=0, said="")
            return told

        yield watching
