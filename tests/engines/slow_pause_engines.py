"""Engines whose pause for lack of descriptors does not end by itself while a test runs."""

from __future__ import annotations

from bothends.engines import admission, native
from bothends.engines.asyncio import AsyncioEngine
from bothends.engines.base import Engine
from bothends.engines.epoll import EpollEngine
from bothends.engines.native import NativeEpollEngine, NativeUringEngine
from bothends.engines.poll import PollEngine
from bothends.engines.select import SelectEngine
from bothends.engines.threads import ThreadsEngine

PAUSE = 3600.0  # seconds


class _SlowPause(Engine):
    def run(self) -> None:
        """Serve. Each engine runs in a process of its own (`Harness`)."""
        for module in (admission, native):
            module.__dict__["ACCEPT_PAUSE"] = PAUSE
        super().run()  # type: ignore[safe-super]  # of the engine that it is combined with


class SlowPauseSelect(_SlowPause, SelectEngine):
    pass


class SlowPausePoll(_SlowPause, PollEngine):
    pass


class SlowPauseEpoll(_SlowPause, EpollEngine):
    pass


class SlowPauseAsyncio(_SlowPause, AsyncioEngine):
    pass


class SlowPauseThreads(_SlowPause, ThreadsEngine):
    pass


class SlowPauseNativeEpoll(_SlowPause, NativeEpollEngine):
    pass


class SlowPauseNativeUring(_SlowPause, NativeUringEngine):
    pass
