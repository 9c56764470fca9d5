"""Collect garbage rarely while millions of objects are made that stay. Rank 1."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Final

_NEW_OBJECTS: Final = 100_000  # between two collections: 700 by default


@contextlib.contextmanager
def rare_collection() -> Iterator[None]:
    """Let the garbage collector look at new objects rarely. Reference counts free most of them anyway.

    The events of a trace are such: a third of the time would go into looking at them again and again.
    """
    before = gc.get_threshold()
    gc.set_threshold(_NEW_OBJECTS, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
