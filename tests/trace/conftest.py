"""The fixtures that choose the source of calls, and a server of another project."""

from __future__ import annotations

from tests.trace.postgresql import postgres_command
from tests.trace.sources import bpf, call_source

__all__ = ["bpf", "call_source", "postgres_command"]
