"""`bothends new`: write a starter client or server in Python, C or Java."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Final

import click

from bothends.cli import terminal
from bothends.errors import SystemCallFailed, UsageError
from bothends.starters.writing import LANGUAGES, ROLES, SERVICES, STYLES, TRANSPORTS, Starter, make_starter

_COLUMN_GAP: Final = 3  # characters between two programs side by side
_MAX_COLUMN_WIDTH: Final = 100  # characters; limit for the left program


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("role", type=click.Choice(ROLES))
@click.option(
    "--lang", "languages", multiple=True, metavar="NAME",
    help=f"{', '.join(LANGUAGES)}; default python; two with --show.",
)  # fmt: skip
@click.option("--transport", default="tcp", metavar="NAME", help=f"{', '.join(TRANSPORTS)}; default tcp.")
@click.option("--service", default="upper", metavar="NAME", help=f"{', '.join(SERVICES)}; default upper.")
@click.option("--style", default="robust", metavar="NAME", help=f"{', '.join(STYLES)}; default robust.")
@click.option("--engine", metavar="NAME", help="I/O engine of a robust stream server; default: the simplest.")
@click.option("--show", is_flag=True, help="Print the program instead; two languages side by side.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@click.argument("folder", default=".", type=click.Path(path_type=Path))
def new(
    role: str,
    languages: tuple[str, ...],
    transport: str,
    service: str,
    style: str,
    engine: str | None,
    show: bool,
    force: bool,
    folder: Path,
) -> None:
    """Write a client or a server to start from: a correct one (robust), or the shortest one (minimal).

    \b
    For example:
      bothends new server --lang c
      bothends new client --show --lang python --lang java
    """
    _check_folder(folder)
    starters = [
        make_starter(role, language, transport, service=service, style=style, engine=engine)
        for language in languages or ("python",)
    ]
    if show:
        _show(starters)
    else:
        for each in starters:
            _write(each, folder, role, transport, service, force=force)


def _check_folder(folder: Path) -> None:
    """Check that a path is not that of a file. Raises UsageError."""
    is_source = folder.suffix in {f".{extension}" for extension in LANGUAGES.values()}
    if folder.is_dir() or not (folder.exists() or is_source):
        return
    what = "is a file" if folder.exists() else "looks like a file"
    raise UsageError(
        f"{folder} {what}; FOLDER is where the program is written, under a name such as server.py"
    )


def _show(starters: list[Starter]) -> None:
    if len(starters) > 2:
        raise UsageError("--show prints at most two programs side by side")
    if len(starters) == 1:
        terminal.show(starters[0].text, end="")
        return
    left, right = ([each.file, "", *each.text.expandtabs(4).splitlines()] for each in starters)
    width = min(_MAX_COLUMN_WIDTH, max(map(len, left))) + _COLUMN_GAP
    for left_line, right_line in itertools.zip_longest(left, right, fillvalue=""):
        terminal.show(f"{left_line:<{width}}{right_line}".rstrip())


def _write(starter: Starter, folder: Path, role: str, transport: str, service: str, *, force: bool) -> None:
    path = folder / starter.file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(starter.text)
    except FileExistsError:
        raise UsageError(f"{path} already exists; --force overwrites it") from None
    except OSError as error:
        raise SystemCallFailed("write", str(path), error.errno or 0) from error
    terminal.show(str(path))
    steps = [f"cd {folder}"] if folder != Path() else []
    if starter.build:
        steps.append(" ".join(starter.build))
    run = " ".join(starter.run)
    steps.append(f"bothends check {role} --contract {service}-{transport} -- {run}")
    for step in steps:
        terminal.note(f"  {step}", "strong" if terminal.is_terminal(sys.stderr) else "")
