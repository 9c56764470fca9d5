"""The fixtures that choose the source of calls."""

from __future__ import annotations

from tests.trace.sources import bpf, call_source

__all__ = ["bpf", "call_source"]
