"""Output shared by all verbs: lines and tables on stdout, notes and errors on stderr, colour.

All text that a verb prints passes through this module; tests/hostile/text/test_one_way_out.py checks that.

1. Results go to stdout, everything else to stderr, so that a pipe carries results only.
2. Colour is used on terminals only, and not if NO_COLOR is set (no-color.org) or TERM is "dumb".
3. An error is one line. Callers escape text that may contain bytes from a peer (`escaping.escape`).
4. What a caller overlooks is escaped here: control characters, bidirectional overrides, lone surrogates. Only
   the sequences of `styled` and of diagrams stay, if the stream has colour.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from bothends.escaping import escape_controls, escape_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Style -> parameter of Select Graphic Rendition (ECMA-48, 8.3.117).
_STYLES: Final = {"error": "31", "quiet": "2", "strong": "1", "good": "32", "warning": "33"}

# The same, in the words of rich.
_RICH_STYLES: Final = {"error": "red", "quiet": "dim", "strong": "bold", "good": "green", "warning": "yellow"}

# The parameters above, and those of diagrams (trace/rendering/terminal.py).
_OWN_STYLE: Final = re.compile(r"(\x1b\[(?:[0127]|3[1-6]|1;31)m)")

_CLEAR_SCREEN: Final = "\x1b[H\x1b[2J"  # CUP, then ED (ECMA-48)
_ENTER_SCREEN: Final = "\x1b[?1049h\x1b[?25l"  # another screen, without a cursor (xterm's ctlseqs)
_LEAVE_SCREEN: Final = "\x1b[?25h\x1b[?1049l"
_CLEAR_LINE: Final = "\r\x1b[K"  # CR, then EL

_WRITE_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})  # write(2)
_MIN_LAST_COLUMN: Final = 20  # characters; minimum width of a table's last column on a narrow terminal


class TerminalStream(Protocol):
    """What `is_terminal` looks at: a text stream, for example."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""


def is_terminal(stream: TerminalStream | None) -> bool:
    """Whether a stream is a terminal. It is None if the descriptor was closed before Python started."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def has_colour(stream: TerminalStream | None) -> bool:
    """Whether to use colour on a stream."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str, stream: TerminalStream | None) -> str:
    """Return text in a style if the stream has colour, else unchanged.

    Styles: "error", "quiet", "strong", "good", "warning", or "" for none.
    """
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if style and has_colour(stream) else text


def show(text: str = "", *, end: str = "\n", stream: TextIO | None = None, flush: bool = False) -> None:
    """Print text on stdout, or on `stream`. It may have several lines, and parts in a style."""
    stream = sys.stdout if stream is None else stream
    if stream is not None:
        stream.write(_safe(text, stream) + end)
        if flush:
            stream.flush()


def show_json(value: Any, *, indent: int | None = None, flush: bool = False) -> None:
    """Print a value as JSON on stdout, in ASCII. `indent` as in json.dumps."""
    show(json.dumps(value, indent=indent), flush=flush)


def clear_screen() -> None:
    """Clear the terminal on stdout, before the next picture of a repeated output."""
    if sys.stdout is not None:
        sys.stdout.write(_CLEAR_SCREEN)


def enter_screen() -> None:
    """Switch the terminal on stdout to another screen, for `draw_screen`."""
    sys.stdout.write(_ENTER_SCREEN)
    sys.stdout.flush()


def leave_screen() -> None:
    """Return to the screen before `enter_screen`."""
    sys.stdout.write(_LEAVE_SCREEN)
    sys.stdout.flush()


def draw_screen(lines: Sequence[str]) -> None:
    """Draw the lines of a whole screen. The terminal may be in raw mode."""
    safe = (_safe(line, sys.stdout) for line in lines)
    sys.stdout.write("\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in safe) + "\x1b[J")
    sys.stdout.flush()


def progress_line(text: str = "") -> None:
    """Replace the current line of the terminal on stderr, without a newline."""
    if sys.stderr is not None:
        sys.stderr.write(_CLEAR_LINE + escape_line(text))
        sys.stderr.flush()


def live_console() -> Console:
    """Return a console on stderr for a table or a progress bar that is drawn again and again.

    The caller passes text through `cell`.
    """
    import rich.console

    return rich.console.Console(file=sys.stderr, no_color=not has_colour(sys.stderr), highlight=False)


def cell(text: str) -> Text:
    """Return text for a cell of a table or for a progress bar: one line, without markup, escaped."""
    import rich.text

    return rich.text.Text(escape_line(text))


def note(text: str, style: str = "quiet") -> None:
    """Print one line on stderr, in a style."""
    if sys.stderr is not None:
        _write_line(styled(_safe(text, sys.stderr).replace("\n", "\\n"), style, sys.stderr))


def error(text: str) -> None:
    """Print an error on stderr: one line, starting with the program's name."""
    if sys.stderr is not None:
        line = escape_controls(" ".join(text.split("\n")))
        _write_line(f"{styled('bothends:', 'error', sys.stderr)} {line}")


def _safe(text: str, stream: TextIO) -> str:
    if "\x1b" not in text or not has_colour(stream):
        return escape_controls(text)
    return "".join(
        part if _OWN_STYLE.fullmatch(part) else escape_controls(part) for part in _OWN_STYLE.split(text)
    )


def _write_line(line: str) -> None:
    # A single write: print() writes the newline separately, and the log line of another thread or of a signal
    # handler could come between the two.
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except BrokenPipeError:  # the program serves others, too: a note without a reader must not end it
        discard_stderr()


def prepare_streams() -> None:
    """Escape characters that the locale's encoding lacks, so that they don't raise UnicodeEncodeError."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def discard_stdout() -> None:
    """Redirect stdout to /dev/null, so that flushing its buffer at exit raises no error again."""
    _discard(1)


def discard_stderr() -> None:
    """Redirect stderr to /dev/null, because its reader has stopped or closed it."""
    _discard(2)


def _discard(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, descriptor)
    finally:
        os.close(null)


def has_stdout_failed(error: OSError) -> bool:
    """Whether an error was that of writing to standard output: the disk is full, for example.

    The data of a failed write may be lost, so flushing the buffer may succeed. Then a newline is written.
    """
    if sys.stdout is None or error.errno not in _WRITE_ERRORS:
        return False
    try:
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b"\n")
    except (OSError, ValueError):
        return True
    return False


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], styles: Mapping[str, str] | None = None
) -> None:
    """Print a table on stdout, with aligned columns. `styles` are those of texts in the first column.

    On a terminal, long columns are wrapped to fit, first the last one; if it is too narrow for that, each row
    becomes a paragraph. Nothing is truncated.
    """
    import rich.box
    import rich.console
    import rich.table

    rendered = rich.table.Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold" if has_colour(sys.stdout) else ""
    )
    widths = [max(cell(each).cell_len for each in column) for column in zip(headers, *rows, strict=True)]
    wrapped = _wrapped_columns(widths, columns()) if is_terminal(sys.stdout) else {len(widths) - 1}
    if wrapped is None:
        _show_paragraphs(headers, rows, styles or {})
        return
    for index, head in enumerate(headers):
        rendered.add_column(head, no_wrap=index not in wrapped, overflow="fold")
    for row in rows:
        cells = [cell(each) for each in row]
        if styles and (style := styles.get(row[0])):
            cells[0].stylize(_RICH_STYLES[style])
        rendered.add_row(*cells)
    console = rich.console.Console(
        width=columns() if is_terminal(sys.stdout) else max(1000, sum(widths) + 2 * len(widths)),
        force_terminal=has_colour(sys.stdout),
        highlight=False,
    )
    with console.capture() as captured:
        console.print(rendered)
    for line in captured.get().splitlines():
        show(line.rstrip())


def show_item(heading: str, text: str, *, indent: int, heading_width: int) -> None:
    """Print a heading and a text beside it, which is wrapped on a terminal."""
    import textwrap

    start = " " * indent + heading.ljust(heading_width) + " "
    if not is_terminal(sys.stdout):
        show(start + text)
        return
    rest = " " * len(start)
    if columns() < len(start) + _MIN_LAST_COLUMN:
        start, rest = f"{heading}: ".rjust(indent + len(heading) + 2), " " * (indent + 2)
    width = max(columns(), _MIN_LAST_COLUMN)
    show("\n".join(textwrap.wrap(text, width, initial_indent=start, subsequent_indent=rest)))


def columns() -> int:
    """Return the width of the terminal on stdout; 80 if it has none."""
    import shutil

    return shutil.get_terminal_size().columns


def _wrapped_columns(widths: Sequence[int], width: int) -> set[int] | None:
    """Return the columns to wrap so that a table fits `width`: the last, and long ones; None if none do."""
    wrapped = {len(widths) - 1}
    others = sorted(range(len(widths) - 1), key=lambda index: -widths[index])
    for index in [None, *(each for each in others if widths[each] > _MIN_LAST_COLUMN)]:
        if index is not None:
            wrapped.add(index)
        needed = [min(size, _MIN_LAST_COLUMN) if i in wrapped else size for i, size in enumerate(widths)]
        if sum(needed) + 2 * (len(widths) - 1) <= width:
            return wrapped
    return None


def _show_paragraphs(
    headers: Sequence[str], rows: Sequence[Sequence[str]], styles: Mapping[str, str]
) -> None:
    """Print each row as a paragraph: its first cell, and the others below it with their headings."""
    import textwrap

    for row in rows:
        show(styled(escape_line(row[0]), styles.get(row[0], "strong"), sys.stdout))
        for head, text in zip(headers[1:], row[1:], strict=True):
            if text:
                lines = textwrap.wrap(
                    escape_line(f"{head}: {text}"),
                    max(columns(), _MIN_LAST_COLUMN),
                    initial_indent="  ",
                    subsequent_indent="    ",
                )
                show("\n".join(lines))


def yes_or_dash(value: bool) -> str:
    """Return the cell of a table that says whether something is supported."""
    return "yes" if value else "-"
