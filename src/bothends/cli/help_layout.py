"""The layout of `--help`, which fits the terminal from 40 columns.

click lays its text out for 50 columns at least, with texts of options beside a column of 30, so a narrower
terminal breaks every line. Here a text that has too little room beside its option goes below it. Lines that
click leaves alone (after \\b) are commands to copy: a terminal may break them, this module does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import click

from bothends.cli import terminal

_MIN_WIDTH: Final = 30  # characters; at less than that a terminal breaks lines
_MIN_TEXT: Final = 22  # characters that a text beside its option has at least
_INDENT: Final = 4  # of a text below its option


class _Formatter(click.HelpFormatter):
    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None):
        if width is None:
            width = max(min(terminal.columns(), max_width or 80) - 1, _MIN_WIDTH)
        super().__init__(indent_increment, width, max_width)

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write the usage line, without a space at the end of a line."""
        begin = len(self.buffer)
        super().write_usage(prog, args, prefix)
        self.buffer[begin:] = ["".join(self.buffer[begin:]).replace(" \n", "\n")]

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write options or verbs, and their texts."""
        items = list(rows)
        first = min(max(len(name) for name, _ in items), col_max) + col_spacing
        if self.width - self.current_indent - first >= _MIN_TEXT:
            super().write_dl(items, col_max, col_spacing)
            return
        for name, text in items:
            self.write(f"{'':{self.current_indent}}{name}\n")
            if text:
                self.current_indent += _INDENT
                self.write_text(text)
                self.current_indent -= _INDENT


class HelpContext(click.Context):
    """A context of click whose help has this layout."""

    formatter_class = _Formatter


class OrderedGroup(click.Group):
    """A group whose help lists the subcommands as they are defined, with whole summaries."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the subcommands in the order of their definition, the most used first."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(200)) for name, each in self.commands.items()])


def lay_out(command: click.Command) -> click.Command:
    """Give a command and its subcommands this layout. Returns the command."""
    command.context_class = HelpContext
    if isinstance(command, click.Group):
        for each in command.commands.values():
            lay_out(each)
    return command
