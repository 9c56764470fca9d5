"""`bothends bench compare`: test whether two results differ significantly."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from bothends.cli import terminal
from bothends.errors import SystemCallFailed, UsageError
from bothends.escaping import escape_text


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("before", type=click.Path())
@click.argument("after", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(before: str, after: str, as_json: bool) -> None:
    """Compare two results of `bothends bench --json`: is AFTER better than BEFORE, worse, or neither?

    \b
      bothends bench tcp://127.0.0.1:12000 --rounds 5 --json > before.json
      bothends bench tcp://127.0.0.1:12000 --rounds 5 --json > after.json
      bothends bench compare before.json after.json

    A difference counts if it exceeds the spread of the rounds, and 5 %.

    Exit status: 1 if any figure is worse, else 0.
    """
    from bothends.bench import significance
    from bothends.bench.results import MAX_SIZE, decode

    documents = []
    for path in (before, after):
        try:
            with Path(path).open("rb") as file:
                data = file.read(MAX_SIZE + 1)
        except OSError as error:
            raise SystemCallFailed("read", path, error.errno or 0) from error
        if len(data) > MAX_SIZE:
            raise UsageError(f"{path}: longer than {MAX_SIZE:,} bytes")
        documents.append(decode(data, path))
    found = significance.compare(*documents)
    if as_json:
        terminal.show_json([dataclasses.asdict(each) for each in found], indent=1)
    else:
        from bothends.bench.report.text import format_number

        terminal.table(
            ("target", "load", "figure", "before", "after", "change", "verdict"),
            [
                (
                    escape_text(each.name),
                    escape_text(each.load),
                    each.figure,
                    format_number(each.before),
                    format_number(each.after),
                    f"{each.change - 1:+.1%}" if each.change is not None else "",
                    each.verdict,
                )
                for each in found
            ],
        )
        fewest = min(
            len(entry.rounds) for document in documents for entry in document.entries if entry.rounds
        )
        if fewest < 4:
            terminal.note(f"{fewest} round(s) are too few to know the spread; try --rounds 5")
    if any(each.verdict == "worse" for each in found):
        raise click.exceptions.Exit(1)
