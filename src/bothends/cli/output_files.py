"""Files that a verb's observers write: their failures are reported once, and again in the exit status.

Standard output and standard error of a log are such files too, unless they were replaced by streams without a
descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Final, Protocol, TextIO, TypeVar

from bothends.cli import terminal
from bothends.errors import SystemCallFailed
from bothends.escaping import escape_line
from bothends.log import LineStream, missing_line
from bothends.osutil.observer_file import ObserverFile

_STDERR: Final = "standard error"
_STDOUT: Final = "standard output"


class Closable(Protocol):
    """A file, or something that writes one."""

    def close(self) -> SystemCallFailed | None:
        """Close the file. Returns an error if lines are missing in it."""


T = TypeVar("T", bound=Closable)


class OutputFiles:
    """The files of one run, and standard error, to which a stopped reader must not block either."""

    def __init__(self) -> None:
        self._files: list[Closable] = []
        self._streams: dict[str, LineStream] = {}

    def closing(self, file: T) -> T:
        """Close a file at the end of the run. Returns it."""
        self._files.append(file)
        return file

    def stream(self, stream: TextIO, missing: Callable[[int, str], str] = missing_line) -> LineStream:
        """Return a standard stream as one that neither fails nor blocks."""
        name = _STDERR if stream is sys.stderr else _STDOUT
        if name not in self._streams:
            try:
                descriptor = stream.fileno()
                stream.flush()
            except (OSError, ValueError, io.UnsupportedOperation):
                return stream
            report = None if stream is sys.stderr else self.warn
            self._streams[name] = self.closing(
                ObserverFile(
                    descriptor,
                    name,
                    missing_line=missing,
                    report=report,
                    is_shared=True,
                    owns_descriptor=False,
                )
            )
        return self._streams[name]

    def warn(self, text: str) -> None:
        """Print a warning, as `notify` prints a note."""
        self.notify(text, "warning")

    def notify(self, text: str, style: str = "quiet") -> None:
        """Print a note on standard error, without waiting for its reader unless that is a terminal."""
        if terminal.is_terminal(sys.stderr):
            terminal.note(text, style)
        elif sys.stderr is not None:
            stream = self.stream(sys.stderr)
            with contextlib.suppress(OSError, ValueError):
                stream.write(escape_line(text) + "\n")
                stream.flush()

    def close(self) -> None:
        """Close all files, the last one first. Raises SystemCallFailed if lines are missing in one."""
        is_one_file = len(self._streams) > 1 and is_same_file(*self._streams.values())
        errors = [error for file in reversed(self._files) if (error := file.close()) is not None]
        # A reader that has stopped: printing the errors would block, or fail.
        stopped = {_STDOUT} if is_one_file else set()
        if any(
            error.target == _STDERR
            or (error.target in stopped and error.errno in (errno.EAGAIN, errno.EPIPE))
            for error in errors
        ):
            terminal.discard_stderr()
        self._files.clear()
        self._streams.clear()
        for error in errors[:-1]:
            terminal.error(str(error))
        if errors:
            raise errors[-1]


def is_same_file(first: LineStream, second: LineStream) -> bool:
    """Whether two streams write to the same file, pipe or terminal."""
    if first is second:
        return True
    try:
        one, other = (os.fstat(each.fileno()) for each in (first, second))  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):  # a stream without a descriptor
        return False
    return os.path.samestat(one, other)


@contextlib.contextmanager
def output_files() -> Iterator[OutputFiles]:
    """Close the files of a run at its end, however it ends."""
    files = OutputFiles()
    try:
        yield files
    finally:
        files.close()
