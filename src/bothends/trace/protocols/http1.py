"""HTTP/1: request and status lines (RFC 9112, sections 3 and 4). Pure."""

from __future__ import annotations

import re
from typing import Final

from bothends.escaping import escape

_REQUEST: Final = re.compile(
    rb"(GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH) ([!-~]{1,2000}) HTTP/1\.([01])\r?\n"
)
_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)(?: ([^\r\n]{0,100}))?\r?\n")


def recognise(data: bytes, _size: int) -> str:
    """Return the request or the status line that bytes begin with; "" if they begin with none."""
    if found := _REQUEST.match(data):
        return f"HTTP/1.{found[3].decode()} {found[1].decode()} {escape(found[2][:100])}"
    if found := _STATUS.match(data):
        return f"HTTP/1.{found[1].decode()} {found[2].decode()} {escape(found[3] or b'')}".rstrip()
    return ""
