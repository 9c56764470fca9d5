"""Write the man pages, from the help of each verb and the tables of the reference page: `make man`.

bothends(1), and a page for each verb and each verb below one: bothends-check-server(1). They are written in
the macros of man(7). `make dist` puts them into the packages (share/man/man1), from where pip installs them.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from bothends.cli.main import VERBS, command_line
from release.commit_time import commit_time

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/reference/command-line.md"
# The first words of a paragraph of a verb's help that stands in a section of its own.
_SECTIONS: Final = {"Exit status:": "EXIT STATUS", "For example:": "EXAMPLES"}


@functools.cache
def _version() -> str:
    """Return the version of the source. Installed metadata may be that of an older commit."""
    command = [sys.executable, "-m", "setuptools_scm"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def write_pages(folder: Path) -> list[Path]:
    """Write all pages into a folder, which is emptied; return their paths."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pages = []
    for name, text in _pages(command_line, click.Context(command_line, info_name="bothends")):
        path = folder / f"{name}.1"
        path.write_text(text, encoding="utf-8")
        pages.append(path)
    return pages


def _pages(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    below = _commands_below(command, context)
    name = context.command_path.replace(" ", "-")
    yield name, _page(command, context, below)
    for verb, one in below.items():
        yield from _pages(one, click.Context(one, parent=context, info_name=verb, **one.context_settings))


def _commands_below(command: click.Command, context: click.Context) -> dict[str, click.Command]:
    if not isinstance(command, click.Group):
        return {}
    found = {verb: command.get_command(context, verb) for verb in command.list_commands(context)}
    return {verb: one for verb, one in found.items() if one is not None and not one.hidden}


def _page(command: click.Command, context: click.Context, below: dict[str, click.Command]) -> str:
    name = context.command_path.replace(" ", "-")
    sections: dict[str, list[str]] = {"DESCRIPTION": []}
    lines = [
        f'.TH {name.upper()} 1 {_date()} "bothends {_version()}" "User commands"',
        ".SH NAME",
        f"{_roff(name)} \\- {_roff(_summary(command, context))}",
        ".SH SYNOPSIS",
        f".B {_roff(context.command_path)}",
        *map(_roff, command.collect_usage_pieces(context)),
    ]
    for paragraph in _paragraphs(command):
        title = next((title for start, title in _SECTIONS.items() if paragraph[0].startswith(start)), None)
        if title is None:
            sections["DESCRIPTION"] += [".PP", *_body(paragraph)]
        else:
            first = paragraph[0].partition(":")[2].strip()
            rest = [first, *paragraph[1:]] if first else paragraph[1:]
            sections.setdefault(title, []).extend(_body(rest, filled=title == "EXIT STATUS"))
    if options := [line for parameter in command.get_params(context) for line in _option(parameter, context)]:
        sections["OPTIONS"] = options
    if below:
        sections["VERBS"] = [
            line
            for verb, one in below.items()
            for line in (".TP", f".BR {_roff(f'{name}-{verb}')} (1)", _roff(_summary(one)))
        ]
    if context.parent is None:
        sections["EXIT STATUS"] = list(_table("Exit status"))
        sections["ENVIRONMENT"] = list(_table("Environment"))
    else:
        parent = context.parent.command_path.replace(" ", "-")
        sections["SEE ALSO"] = [f".BR {_roff(parent)} (1)"]
    for title, body in sections.items():
        lines += [f".SH {title}", *(body[1:] if body[:1] == [".PP"] else body)]
    return "\n".join(lines) + "\n"


def _summary(command: click.Command, context: click.Context | None = None) -> str:
    """Return one line: of `bothends --help` for its verbs, else the first sentence of the verb's own help."""
    path = context.command_path.split() if context is not None else []
    line = VERBS[path[1]][1] if len(path) == 2 else command.get_short_help_str(limit=200)
    return line.rstrip(".")


def _paragraphs(command: click.Command) -> Iterator[list[str]]:
    """Yield the paragraphs of a verb's help, as lines. click does not wrap those after a backspace."""
    text = (command.help or "").partition("\f")[0]
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = block.splitlines()
        preformatted = lines[0].strip() == "\b"
        if preformatted:
            lines = lines[1:]
        if not lines:
            continue
        if lines[0].strip() in _SECTIONS or (preformatted and not lines[0].startswith(" ")):
            yield [lines[0].strip(), *lines[1:]]
        elif preformatted:
            yield [" ", *lines]
        else:
            yield [" ".join(line.strip() for line in lines)]


def _body(lines: list[str], *, filled: bool = False) -> list[str]:
    """Return the lines of a paragraph: of filled text, or as it stands, after its first line."""
    if len(lines) == 1 or filled:
        return [_roff(" ".join(line.strip() for line in lines))]
    first = [_roff(lines[0])] if not lines[0].startswith(" ") else []
    rest = lines if not first else lines[1:]
    indent = min((len(line) - len(line.lstrip()) for line in rest if line.strip()), default=0)
    kept = [_roff(line[indent:]) for line in rest if line.strip()]
    return [*first, *([".PP"] if first else []), ".RS 4", ".nf", *kept, ".fi", ".RE"]


def _option(parameter: click.Parameter, context: click.Context) -> Iterator[str]:
    record = parameter.get_help_record(context)
    if record is None or not isinstance(parameter, click.Option):
        return
    names, text = record
    bold = re.sub(r"(?<![\w-])(--?[\w-]+)", lambda match: f"\\fB{_roff(match[1])}\\fR", _roff_text(names))
    yield ".TP"
    yield bold
    yield _roff(text)


def _table(title: str) -> Iterator[str]:
    """Yield the rows of the first table of a section of the reference page, as tagged paragraphs."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    rows = [line.strip("|").split(" | ") for line in table[0].splitlines()] if table else []
    for first, *others in rows[2:]:
        yield ".TP"
        yield f".B {_roff(_plain(first))}"
        yield _roff(_plain("; ".join(others)))


def _plain(markdown: str) -> str:
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", markdown).replace("`", "").strip()


def _roff_text(text: str) -> str:
    return text.replace("\\", "\\e")


def _roff(text: str) -> str:
    """Escape a line: backslashes, hyphens, and a first character that would begin a request."""
    escaped = _roff_text(text).replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped


def _date() -> str:
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or commit_time())
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%d}"


def main() -> None:
    """Write the pages into a folder."""
    parser = argparse.ArgumentParser(description="Write the man pages.")
    parser.add_argument("--out", type=Path, default=ROOT / "man", help="Folder; emptied. Default: man.")
    arguments = parser.parse_args()
    print(f"{arguments.out}: {len(write_pages(arguments.out))} pages")


if __name__ == "__main__":
    main()
