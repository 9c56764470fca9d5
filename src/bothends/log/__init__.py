"""Log events as lines of text or as JSON. Wrappers coalesce fragments and throttle repeated events.

Rank 1: consumes events, and imports nothing that emits them.
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
