"""Log events as lines of text or as JSON. Wrappers coalesce fragments and throttle repeated events.

Rank 1: consumes events, and imports nothing that emits them.
"""

from bothends.log.coalesce import LineCoalescer
from bothends.log.json import JsonLog, missing_record
from bothends.log.text import MAX_MESSAGE_TEXT, LineStream, TextLog, message_lines, missing_line
from bothends.log.throttle import Repeated, RepeatThrottle

__all__ = [
    "MAX_MESSAGE_TEXT",
    "JsonLog",
    "LineCoalescer",
    "LineStream",
    "RepeatThrottle",
    "Repeated",
    "TextLog",
    "message_lines",
    "missing_line",
    "missing_record",
]
