"""What each call means, in words for whoever meets it for the first time. Pure.

A table, one entry a call: its C prototype, how Python does the same, and a sentence. `meaning` adds what
this call in particular shows.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from bothends.trace.model import Call, Trace


class Entry(NamedTuple):
    """One system call. `section` is where the manual has it."""

    prototype: str
    python: str
    sentence: str
    section: int = 2


CALLS: Final[dict[str, Entry]] = {}


def meaning(call: Call, trace: Trace) -> str:
    """What a call means, in a sentence or two; empty for a call that isn't in the table."""
    entry = CALLS.get(call.name)
    return entry.sentence if entry is not None else ""
