"""The trace file of a run: what the sources report, until points can take its place.

1. While programs run, the file holds blocks of what the sources have reported (`source_blocks.py`). The
   blocks of points wait in memory. When the run has ended, or when much has been recorded and the analysis
   has kept up, the points take the place of the recording (`settle`): they are smaller, and a part of them
   can be read.
2. If the programs are faster than the analysis, the recording stays (`keep_source`), and opening the
   file analyses it. So keeping costs a small part of what drawing costs, and what is drawn doesn't slow the
   programs.
3. At any time the file is valid up to its last complete block, also if bothends is killed.
"""

from __future__ import annotations

from typing import Final, Protocol

from bothends.trace.trace_blocks import FIRST_LINE, BlockFile

MAX_SOURCE: Final = 16 << 20  # bytes of a recording, after which points take its place


class RestartableFile(BlockFile, Protocol):
    """Where the blocks are written: an `ObserverFile` of a regular file."""

    def restart(self, size: int) -> None:
        """Remove all after the first `size` bytes."""


class RunFile:
    """Takes blocks of points, and blocks of what the sources report. Its first line has been written."""

    def __init__(self, file: RestartableFile) -> None:
        self._file = file
        self._points: list[tuple[bytes, int]] | None = []  # None: they are written
        self._keeps_source = False

    @property
    def is_settled(self) -> bool:
        """Whether points are in the file, and no recording."""
        return self._points is None

    def write(self, text: bytes, /, *, records: int) -> bool:
        """Add a block of points. Returns False if it cannot be written."""
        if self._keeps_source:
            return True
        if self._points is not None:
            self._points.append((text, records))
            return True
        return self._file.write(text, records=records) is not False

    def write_source(self, text: bytes, /, *, records: int) -> bool:
        """Add a block of what the sources report."""
        if self._points is None:
            return True
        return self._file.write(text, records=records) is not False

    def keep_source(self) -> None:
        """Keep the recording: the blocks of points are not complete."""
        self._keeps_source, self._points = True, []

    def begin_again(self) -> None:
        """Take blocks of points again: the recording is analysed from its start."""
        self._keeps_source, self._points = False, []

    def settle(self) -> None:
        """Let the points take the place of the recording. What follows is written at once."""
        if self._points is None or self._keeps_source:
            return
        blocks, self._points = self._points, None
        self._file.restart(len(FIRST_LINE))
        for text, records in blocks:
            self._file.write(text, records=records)


class RecordingFile:
    """The same file, as the `BlockFile` of a `SourceRecorder`."""

    def __init__(self, file: RunFile) -> None:
        self._file = file

    def write(self, text: bytes, /, *, records: int) -> bool:
        """Write a whole block, or nothing, and return False."""
        return self._file.write_source(text, records=records)
