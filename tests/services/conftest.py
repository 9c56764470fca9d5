"""Hypothesis as the house wants its tests: the same examples each time, and no race with the machine."""

from __future__ import annotations

from hypothesis import settings

# A limit on each example's time fails a good test wherever the machine is busy with something else.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")
