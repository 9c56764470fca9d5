"""Run bothends on a pseudo-terminal: read the screen, and type."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TIMEOUT = 20.0


class Terminal:
    """The master side of a pseudo-terminal (pty(7)), with the program on its slave side."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.output = b""
        self._master = master
        self._position = 0

    def type(self, keys: str | bytes) -> None:
        """Type keys."""
        os.write(self._master, keys.encode() if isinstance(keys, str) else keys)

    def expect(self, text: str) -> None:
        """Read until this text is shown, after the text expected before."""
        self.expect_match(re.compile(re.escape(text.encode())))

    def expect_match(self, pattern: re.Pattern[bytes]) -> None:
        """Read until a pattern is shown, after the text expected before."""
        deadline = time.monotonic() + TIMEOUT
        while (found := pattern.search(self.output, self._position)) is None:
            assert self._read(deadline - time.monotonic()), f"{pattern!r} isn't shown: {self.output!r}"
        self._position = found.end()

    def wait(self) -> int:
        """Read until EOF, and return the exit status."""
        deadline = time.monotonic() + TIMEOUT
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, seconds))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: the last process that had the slave open has closed it
            return False
        self.output += data
        return bool(data)


@contextmanager
def terminal(
    *arguments: str, state: Path, colour: bool = False, cwd: Path | None = None, columns: int = 80
) -> Iterator[Terminal]:
    """Run bothends on a pseudo-terminal, with its history in the folder `state`."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {
        **os.environ,
        "TERM": "xterm",
        "NO_COLOR": "" if colour else "1",
        "XDG_STATE_HOME": str(state),
        "PROMPT_TOOLKIT_NO_CPR": "1",  # this terminal does not answer cursor position requests
    }
    for name in ("COLUMNS", "LINES"):  # the terminal has a size of its own
        environment.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-m", "bothends", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        cwd=cwd,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
        os.close(master)
