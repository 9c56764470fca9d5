"""The engines there are: a literal table of name to "module:Class".

Adding one is one file and one line here (see docs/how-to/add-an-engine.md).
"""

from __future__ import annotations

import importlib
from typing import Final

from bothends import suggest
from bothends.engines.base import Engine
from bothends.errors import UnknownName

ENGINES: Final = {
    "iterative": "bothends.engines.iterative:IterativeEngine",
    "fork": "bothends.engines.fork:ForkEngine",
    "prefork": "bothends.engines.prefork:PreforkEngine",
    "threads": "bothends.engines.threads:ThreadsEngine",
    "pool": "bothends.engines.pool:PoolEngine",
    "select": "bothends.engines.select:SelectEngine",
    "poll": "bothends.engines.poll:PollEngine",
    "epoll": "bothends.engines.epoll:EpollEngine",
    "asyncio": "bothends.engines.asyncio:AsyncioEngine",
    "uvloop": "bothends.engines.uvloop:UvloopEngine",
    "native": "bothends.engines.native:NativeEngine",
}

# The best first: what `serve` takes when nobody says which.
PREFERRED: Final = ("native", "uvloop", "epoll", "asyncio")


def names() -> list[str]:
    """Every engine's name, from the plainest to the fastest."""
    return list(ENGINES)


def load(name: str) -> type[Engine]:
    """The engine of this name, or the "module:Class" of somebody else's.

    Raises:
        UnknownName: no such engine.
    """
    target = ENGINES.get(name, name if ":" in name else "")
    if not target:
        nearest = suggest.nearest(name, ENGINES)
        raise UnknownName("engine", name, nearest, "see `bothends engines`")
    module, _, attribute = target.partition(":")
    try:
        engine = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UnknownName("engine", name, hint=str(error)) from error
    if not (isinstance(engine, type) and issubclass(engine, Engine)):
        raise UnknownName("engine", name, hint=f"{target} is no subclass of bothends.engines.base.Engine")
    return engine


def preferred() -> type[Engine]:
    """The best engine that works here."""
    for name in PREFERRED:
        engine = load(name)
        if engine.unavailable_reason() is None:
            return engine
    raise AssertionError("asyncio works wherever Python does")
