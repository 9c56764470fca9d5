"""The fixture `call_source`."""

from __future__ import annotations

from tests.trace.sources import call_source

__all__ = ["call_source"]
