"""What every verb shows alike: notes and errors on stderr, colour only where it is wanted.

1. Results go to stdout, everything else to stderr, so that a pipe carries results only.
2. Colour is for a terminal, unless NO_COLOR says no (no-color.org) or TERM is "dumb".
3. An error is one line. Whatever may hold a peer's bytes has been through `text.escape` before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final, TextIO

# Select Graphic Rendition (ECMA-48, 8.3.117), by what it is used for.
_STYLES: Final = {"error": "31", "quiet": "2", "strong": "1", "good": "32", "warning": "33"}

_MIN_LAST_COLUMN: Final = 20  # characters of a table's last column, where all of it doesn't fit


def is_terminal(stream: TextIO | None) -> bool:
    """Whether someone looks at it. A stream that the caller closed before we began is None."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed since
        return False


def has_colour(stream: TextIO | None) -> bool:
    """Whether to colour what is written to it."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str, stream: TextIO | None) -> str:
    """The text in a style ("error", "quiet", "strong", "good", "warning", or "" for none), if the stream has
    colour.
    """
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if style and has_colour(stream) else text


def note(text: str, style: str = "quiet") -> None:
    """One line for whoever watches: stderr, so that no result is mixed with it."""
    if sys.stderr is not None:
        _write_line(styled(text, style, sys.stderr))


def error(text: str) -> None:
    """What went wrong, in one line that says who speaks."""
    if sys.stderr is not None:
        line = " ".join(text.split("\n"))
        _write_line(f"{styled('bothends:', 'error', sys.stderr)} {line}")


def _write_line(line: str) -> None:
    # In one piece: print() writes the line's end apart, and a log line of another thread, or of a signal
    # handler, would come in between.
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def prepare_streams() -> None:
    """Let no character that the locale can't write end the program: it is shown by its number."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def discard_stdout() -> None:
    """Nobody reads stdout any more: what is still buffered goes nowhere, and complains to nobody."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
    finally:
        os.close(nowhere)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout, its columns aligned. The last one is folded to fit a terminal, and nothing is cut:
    where the others are wider than the terminal, so are the lines.
    """
    import rich.box
    import rich.cells
    import rich.console
    import rich.table

    drawn = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in headers:
        drawn.add_column(head, no_wrap=head != headers[-1])
    for row in rows:
        drawn.add_row(*(rich.markup.escape(cell) for cell in row))
    console = rich.console.Console(
        width=None if is_terminal(sys.stdout) else 1000, no_color=not has_colour(sys.stdout), highlight=False
    )
    widths = [max(map(rich.cells.cell_len, column)) for column in zip(headers, *rows, strict=True)]
    console.width = max(console.width, sum(widths[:-1]) + 2 * len(widths) + min(widths[-1], _MIN_LAST_COLUMN))
    with console.capture() as captured:
        console.print(drawn)
    for line in captured.get().splitlines():
        print(line.rstrip())  # noqa: T201
