"""Open a trace file of any version: lines (`trace_file.py`) or compressed blocks (`trace_blocks.py`)."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final

from bothends.errors import SystemCallFailed
from bothends.trace import trace_blocks, trace_file
from bothends.trace.model import Point, Trace
from bothends.trace.source_blocks import SourceReader
from bothends.trace.trace_blocks import Period

_FIRST: Final = 4096  # bytes of the first line, which holds the version


class OpenedTrace:
    """A trace file, open for reading. Close it, or use it in a with statement."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name

    def read(
        self,
        on_point: Callable[[Point], None],
        trace: Trace,
        period: Period | None = None,
        *,
        goes_on: bool = False,
    ) -> SourceReader | None:
        """Read it, or a period of it, into `trace`. `on_point` is called for each point, once it is added.

        `goes_on`: the run that writes the file does; so what may come next is not emitted yet. Returns what
        has read the recording, if the file is one.

        Raises:
            TraceFileError: the file is not a trace.
        """
        first = self._file.readline(_FIRST)
        if first == trace_blocks.FIRST_LINE:
            source = SourceReader(trace, on_point, period)
            source.goes_on = goes_on
            reader = trace_blocks.TraceReader(self._file, self._name, on_point, trace, period, source)
            reader.read()
            return source if reader.is_recording else None
        with io.TextIOWrapper(self._file, encoding="utf-8", errors="replace") as rest:
            trace_file.read(_lines(first, rest), self._name, on_point, trace, period)
            return None

    def __enter__(self) -> OpenedTrace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _lines(first: bytes, rest: io.TextIOWrapper) -> Iterator[str]:
    """Yield the lines of a file whose first bytes have been read."""
    line = first.decode("utf-8", "replace")
    if line:
        yield line if line.endswith("\n") else line + rest.readline()
        yield from rest


def open_trace(path: Path) -> OpenedTrace:
    """Open a trace file. Raises SystemCallFailed."""
    try:
        return OpenedTrace(path.open("rb"), str(path))
    except OSError as error:
        raise SystemCallFailed("read", str(path), error.errno or 0) from error
