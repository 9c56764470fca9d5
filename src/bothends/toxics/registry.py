"""The toxics, by name. A toxic is entered here and nowhere else."""

from __future__ import annotations

import difflib
import functools
import importlib
from typing import Final

from bothends.errors import UnknownName
from bothends.toxics.base import Toxic

TOXICS: Final[dict[str, str]] = {
    "latency": "bothends.toxics.latency:Latency",
}


@functools.cache
def load(name: str) -> type[Toxic]:
    """The toxic of a type. Raises UnknownName."""
    if name not in TOXICS:
        nearest = next(iter(difflib.get_close_matches(name, TOXICS, 1)), "")
        raise UnknownName("toxic", name, nearest, "there is " + ", ".join(TOXICS))
    module, _, attribute = TOXICS[name].partition(":")
    kind: type[Toxic] = getattr(importlib.import_module(module), attribute)
    return kind
