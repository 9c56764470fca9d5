"""What blocked calls wait for, at the end of a trace: `graph.py` finds it, `sentences.py` describes it."""

from bothends.trace.waits.graph import PendingWait, WaitsAtEnd

__all__ = ["PendingWait", "WaitsAtEnd"]
