"""Suggest the known name closest to a misspelled one, for error messages. Rank 0."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_CUTOFF: Final = 0.6  # of difflib's ratio: its own default, at which two names share most of their letters


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name most similar to `name`, ignoring case, or "" if none is similar enough."""
    from difflib import get_close_matches  # takes milliseconds to import, and only errors need it

    by_lower = {each.lower(): each for each in reversed(list(known))}
    return next((by_lower[match] for match in get_close_matches(name.lower(), by_lower, 1, _CUTOFF)), "")
