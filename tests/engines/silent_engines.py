"""Engines with an observer of problems only, as with `bothends serve -q`."""

from __future__ import annotations

import dataclasses

from bothends.engines.base import EngineContext
from bothends.engines.epoll import EpollEngine
from bothends.engines.native import NativeEpollEngine, NativeUringEngine
from bothends.engines.uvloop import UvloopEngine
from bothends.events import ProblemsOnly


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
