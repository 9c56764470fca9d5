"""Engine `uvloop`: one thread; libuv's event loop under asyncio's interface.

The same protocol as `asyncio.py`, on the loop that Node.js runs on: reading and writing are done in
C, and Python is called with the bytes. libuv blocks in C, where Python's signal handlers don't run;
uvloop wakes itself up for them, but only in the main thread, so a server elsewhere is stopped by
its latch (`shutdown.py`), as everywhere.
"""

from __future__ import annotations

import asyncio
import importlib.util

from bothends.engines.asyncio import AsyncioEngine


def _new_event_loop() -> asyncio.AbstractEventLoop:
    import uvloop  # here, because a program that never uses it need not load it

    return uvloop.new_event_loop()


class UvloopEngine(AsyncioEngine):
    """Waits in libuv's event loop; transports and protocols."""

    name = "uvloop"
    summary = "one thread runs libuv's event loop under asyncio's interface"
    loop_factory = staticmethod(_new_event_loop)
    buffered = False  # it has a buffer of its own

    @classmethod
    def unavailable_reason(cls) -> str | None:
        """See Engine.missing."""
        return None if importlib.util.find_spec("uvloop") else "the package uvloop is not installed"
