"""What the commands that test and attack programs share: a progress line, and the option --report."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from pathlib import Path

from bothends.cli import terminal
from bothends.errors import SystemCallFailed, UsageError


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


def parse_reports(texts: Sequence[str], formats: Sequence[str]) -> list[tuple[str, Path | None]]:
    """Return the formats that are asked for, with the file of each; None for standard output.

    Raises:
        UsageError: a format is not one of `formats`.
        SystemCallFailed: the folder of a file doesn't exist. Better now than when the work is done.
    """
    found = []
    for text in texts:
        name, _, file = text.partition("=")
        if name not in formats:
            raise UsageError(f"there is no report format {name!r}; there is {', '.join(formats)}")
        if file and not Path(file).absolute().parent.is_dir():
            raise SystemCallFailed("write", file, errno.ENOENT)
        found.append((name, Path(file) if file else None))
    return found
