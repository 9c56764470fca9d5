"""Logs: events as lines of text, or as JSON for programs; and a wrapper that no flood of them gets through.

Rank 1: listens to events, and knows nobody who makes them.
"""

from bothends.log.coalesce import LineCoalescer
from bothends.log.json import JsonLog
from bothends.log.text import MAX_MESSAGE_TEXT, TextLog, message_lines
from bothends.log.throttle import Repeated, RepeatThrottle

__all__ = [
    "MAX_MESSAGE_TEXT",
    "JsonLog",
    "LineCoalescer",
    "RepeatThrottle",
    "Repeated",
    "TextLog",
    "message_lines",
]
