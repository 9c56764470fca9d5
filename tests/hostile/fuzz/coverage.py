"""Which lines of the source have run, so that a fuzzer keeps inputs that reach a new one."""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, Self


class LineCoverage:
    """Context: traces the lines of files below `folder` with sys.settrace. A line is traced until it has run.

    None traces nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.lines = 0
        """How many different lines have run."""
        self._prefix = f"{folder}/" if folder is not None else ""
        self._not_run: dict[CodeType, set[int]] = {}
        self._previous: Any = None

    def __enter__(self) -> Self:
        self._previous = sys.gettrace()
        self.resume()
        return self

    def resume(self) -> None:
        """Trace again: an exception in the trace function, such as RecursionError, ends it."""
        if self._prefix:
            sys.settrace(self._on_call)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.settrace(self._previous)

    def _on_call(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        not_run = self._not_run.get(code)
        if not_run is None:
            is_traced = code.co_filename.startswith(self._prefix)
            not_run = {line for *_, line in code.co_lines() if line is not None} if is_traced else set()
            self._not_run[code] = not_run
        return self._on_event if not_run else None

    def _on_event(self, frame: FrameType, event: str, _: Any) -> Any:
        not_run = self._not_run[frame.f_code]
        if event == "line" and frame.f_lineno in not_run:
            not_run.discard(frame.f_lineno)
            self.lines += 1
        return self._on_event
