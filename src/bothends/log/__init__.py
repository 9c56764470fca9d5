"""Logs: events as lines of text, or as JSON for programs; and a wrapper that no flood of them gets through.

Rank 1: listens to events, and knows nobody who makes them.
"""

from bothends.log.calm import Calm, Repeated
from bothends.log.lines import SHOWN, TextLog, message_lines
from bothends.log.pieces import Pieces
from bothends.log.records import JsonLog

__all__ = ["SHOWN", "Calm", "JsonLog", "Pieces", "Repeated", "TextLog", "message_lines"]
