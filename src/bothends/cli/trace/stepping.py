"""`bothends trace --open FILE --step`: a trace on the terminal, forward and back with keys."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Final

from bothends.cli import terminal
from bothends.trace.rendering.steps import Steps

_ESCAPE_TIMEOUT: Final = 0.05  # seconds: a terminal sends the sequence of a key at once
_PAGE: Final = 10  # steps

# The sequences of xterm's keys, with and without application mode (ctlseqs, "PC-Style Function Keys").
_KEYS: Final = {
    "next": (b"\x1b[C", b"\x1bOC", b"\x1b[B", b"\x1bOB", b" ", b"\r", b"\n", b"n", b"l", b"j"),
    "back": (b"\x1b[D", b"\x1bOD", b"\x1b[A", b"\x1bOA", b"\x7f", b"\x08", b"p", b"h", b"k"),
    "page": (b"\x1b[6~",),
    "page back": (b"\x1b[5~",),
    "first": (b"\x1b[H", b"\x1bOH", b"\x1b[1~", b"g"),
    "last": (b"\x1b[F", b"\x1bOF", b"\x1b[4~", b"G"),
    "finding": (b"f",),
    "quit": (b"q", b"\x1b", b"\x03", b"\x04", b""),
}
_ACTIONS: Final = {sequence: action for action, sequences in _KEYS.items() for sequence in sequences}


def step_through(steps: Steps) -> None:
    """Show the steps on the terminal, until a key quits. Returns at once if there are none."""
    if not len(steps):
        terminal.note("the trace has nothing to show")
        return
    position = 0
    with _full_screen() as resized:
        while True:
            size = shutil.get_terminal_size()
            terminal.draw_screen(steps.screen(position, size.columns, size.lines))
            action = _next_action(resized)
            if action == "quit":
                return
            position = _moved(steps, position, action)


def _moved(steps: Steps, position: int, action: str) -> int:
    last = len(steps) - 1
    target = {
        "next": position + 1,
        "back": position - 1,
        "page": position + _PAGE,
        "page back": position - _PAGE,
        "first": 0,
        "last": last,
    }.get(action, position)
    if action == "finding":
        target = steps.next_finding(position)
    return min(max(target, 0), last)


@contextlib.contextmanager
def _full_screen() -> Iterator[int]:
    """Show another screen, and read keys one by one. Yields a descriptor that is readable after a resize."""
    descriptor = sys.stdin.fileno()
    saved = termios.tcgetattr(descriptor)
    resized, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    previous = signal.signal(signal.SIGWINCH, lambda _number, _frame: _wake(wakeup))
    terminal.enter_screen()
    try:
        tty.setraw(descriptor)
        yield resized
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, saved)
        terminal.leave_screen()
        signal.signal(signal.SIGWINCH, previous)
        os.close(resized)
        os.close(wakeup)


def _wake(descriptor: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.write(descriptor, b"\0")


def _next_action(resized: int) -> str:
    """Wait for a key. Returns its action, or "redraw" after a resize or for another key."""
    descriptor = sys.stdin.fileno()
    ready, _, _ = select.select([descriptor, resized], [], [])
    if descriptor not in ready:
        os.read(resized, 64)
        return "redraw"
    return _ACTIONS.get(_read_key(descriptor), "redraw")


def _read_key(descriptor: int) -> bytes:
    """Return the bytes of one key; b"" if the terminal is gone."""
    try:
        key = os.read(descriptor, 1)
        while key[:1] == b"\x1b" and not _is_complete(key):
            if not select.select([descriptor], [], [], _ESCAPE_TIMEOUT)[0]:
                break
            key += os.read(descriptor, 1)
    except OSError:  # EIO: the terminal was closed
        return b""
    return key


def _is_complete(key: bytes) -> bool:
    """Whether a key that began with ESC is complete: ESC O and a letter, or ESC [ up to a final byte."""
    if len(key) < 3:
        return len(key) == 2 and key[1:] not in (b"[", b"O")
    return 0x40 <= key[-1] <= 0x7E or len(key) > 16
