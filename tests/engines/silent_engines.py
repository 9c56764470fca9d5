"""Engines with an observer of problems only, as with `bothends serve -q`, or with a log."""

from __future__ import annotations

import dataclasses
import io

from bothends.engines.base import EngineContext
from bothends.engines.epoll import EpollEngine
from bothends.engines.native import NativeEpollEngine, NativeUringEngine
from bothends.engines.uvloop import UvloopEngine
from bothends.events import LoggedTraffic, ProblemsOnly
from bothends.log import JsonLog


def problems_only(context: EngineContext) -> EngineContext:
    return (
        context
        if context.observe is None
        else dataclasses.replace(context, observe=ProblemsOnly(context.observe))
    )


class SilentUringEngine(NativeUringEngine):
    def __init__(self, context: EngineContext) -> None:
        super().__init__(problems_only(context))


class SilentEpollEngine(NativeEpollEngine):
    def __init__(self, context: EngineContext) -> None:
        super().__init__(problems_only(context))


class SilentReadinessEngine(EpollEngine):
    def __init__(self, context: EngineContext) -> None:
        super().__init__(problems_only(context))


class SilentUvloopEngine(UvloopEngine):
    def __init__(self, context: EngineContext) -> None:
        super().__init__(problems_only(context))


class NullStream(io.StringIO):
    """A stream that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


def logged(context: EngineContext) -> EngineContext:
    if context.observe is None:
        return context
    line_format = JsonLog(NullStream()).line_format()
    assert line_format is not None
    return dataclasses.replace(context, observe=LoggedTraffic(context.observe, line_format))


class LoggedUringEngine(NativeUringEngine):
    def __init__(self, context: EngineContext) -> None:
        super().__init__(logged(context))


class LoggedEpollEngine(NativeEpollEngine):
    def __init__(self, context: EngineContext) -> None:
        super().__init__(logged(context))
