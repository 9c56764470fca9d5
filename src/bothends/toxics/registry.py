"""Registry of toxics: type name to "module:Class". The only place that lists a toxic."""

from __future__ import annotations

import functools
import importlib
from typing import Final

from bothends import suggest
from bothends.errors import UnknownName
from bothends.toxics.base import Toxic

TOXICS: Final[dict[str, str]] = {
    "latency": "bothends.toxics.latency:Latency",
    "bandwidth": "bothends.toxics.bandwidth:Bandwidth",
    "loss": "bothends.toxics.loss:Loss",
    "gilbert_elliott": "bothends.toxics.gilbert_elliott:GilbertElliott",
    "duplicate": "bothends.toxics.duplicate:Duplicate",
    "reorder": "bothends.toxics.reorder:Reorder",
    "corrupt": "bothends.toxics.corrupt:Corrupt",
    "slicer": "bothends.toxics.slicer:Slicer",
    "limit_data": "bothends.toxics.limit_data:LimitData",
    "drop_first": "bothends.toxics.drop_first:DropFirst",
    "stall": "bothends.toxics.stall:Stall",
    "blackhole": "bothends.toxics.blackhole:Blackhole",
    "timeout": "bothends.toxics.timeout:Timeout",
    "reset_peer": "bothends.toxics.reset_peer:ResetPeer",
    "slow_close": "bothends.toxics.slow_close:SlowClose",
    "withhold_end": "bothends.toxics.withhold_end:WithholdEnd",
    "noop": "bothends.toxics.noop:Noop",
}


@functools.cache
def load(name: str) -> type[Toxic]:
    """Import the toxic class of a type name. Raises UnknownName."""
    if name not in TOXICS:
        nearest = suggest.nearest(name, TOXICS)
        raise UnknownName("toxic", name, nearest, "there is " + ", ".join(TOXICS))
    module, _, attribute = TOXICS[name].partition(":")
    kind: type[Toxic] = getattr(importlib.import_module(module), attribute)
    return kind
