"""Logs: events as lines of text, or as JSON for programs; and a wrapper that no flood of them gets through.

Rank 1: listens to events, and knows nobody who makes them.
"""

from bothends.log.coalesce import Pieces
from bothends.log.json import JsonLog
from bothends.log.text import SHOWN, TextLog, message_lines
from bothends.log.throttle import Calm, Repeated

__all__ = ["SHOWN", "Calm", "JsonLog", "Pieces", "Repeated", "TextLog", "message_lines"]
