"""What the commands that test and attack programs share: a progress line, and the files of reports."""

from __future__ import annotations

import sys
from pathlib import Path

from bothends.cli import terminal
from bothends.errors import SystemCallFailed


class ProgressLine:
    """A line on standard error, if that is a terminal: how many of `total` are done, and a text."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._shown = terminal.is_terminal(sys.stderr)

    def count(self) -> None:
        """Count one that is done."""
        self._done += 1

    def show(self, text: str) -> None:
        """Show the count, and a text after it."""
        if self._shown:
            terminal.progress_line(f"{self._done}/{self._total}  {text}")

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            terminal.progress_line()


def write_report(text: str, format_name: str, file: Path | None) -> None:
    """Write a report to a file, and say so; or to standard output if `file` is None.

    Raises:
        SystemCallFailed: the file cannot be written.
    """
    if file is None:
        terminal.show(text, end="" if text.endswith("\n") else "\n")
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SystemCallFailed("write", str(file), error.errno or 0) from error
    terminal.note(f"{format_name}: {file}")
