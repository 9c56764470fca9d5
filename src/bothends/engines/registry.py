"""The table of engines: name to "module:Class".

A new engine takes one file and one line here (see docs/how-to/add-an-engine.md).
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

# Best first: `serve` takes the first that is available, unless `--engine` is given.
PREFERRED: Final = ("native", "uvloop", "epoll", "asyncio")


def names() -> list[str]:
    """Return the names of all engines, from the simplest to the fastest."""
    return list(ENGINES)


def load(name: str) -> type[Engine]:
    """Load an engine by its name in the table, or by "module:Class" if it is in another package.

    Raises:
        UnknownName: there is no such engine.
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
        raise UnknownName("engine", name, hint=f"{target} is not a subclass of bothends.engines.base.Engine")
    return engine


def preferred() -> type[Engine]:
    """Return the best engine that is available on this machine."""
    for name in PREFERRED:
        engine = load(name)
        if engine.unavailable_reason() is None:
            return engine
    raise AssertionError("asyncio is always available")


def default_size(name: str) -> int | None:
    """Return how many connections an engine serves at a time, by its default number of workers.

    None: an engine without a fixed number of workers.
    """
    if name not in ("prefork", "pool"):
        return None
    module, _, _ = ENGINES[name].partition(":")
    size: int = importlib.import_module(module).DEFAULT_SIZE
    return size
