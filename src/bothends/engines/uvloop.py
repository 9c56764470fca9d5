"""Engine `uvloop`: one thread; libuv's event loop under asyncio's interface.

The protocol of `asyncio.py` on the event loop of Node.js: libuv reads and writes in C, and calls Python with
the bytes. While libuv blocks in C, Python's signal handlers do not run. uvloop wakes up for them, but only in
the main thread; a server in another thread is stopped by its shutdown flag (`shutdown.py`), as with any
engine.
"""

from __future__ import annotations

import asyncio
import importlib.util

from bothends.engines.asyncio import AsyncioEngine


def _new_event_loop() -> asyncio.AbstractEventLoop:
    import uvloop  # imported here, so that other engines do not load it

    return uvloop.new_event_loop()


class UvloopEngine(AsyncioEngine):
    """One thread that runs libuv's event loop; transports and protocols."""

    name = "uvloop"
    summary = "one thread runs libuv's event loop under asyncio's interface"
    loop_factory = staticmethod(_new_event_loop)
    buffered = False  # libuv has its own read buffer

    @classmethod
    def unavailable_reason(cls) -> str | None:
        return None if importlib.util.find_spec("uvloop") else "the package uvloop is not installed"
