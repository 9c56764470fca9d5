"""What HTTP/1.1 messages lack: a blank line, a length, bytes of the body (RFC 9112, section 6.3). Pure."""

from __future__ import annotations

import re
from typing import Final

_REQUEST: Final = re.compile(rb"[A-Z]{3,10} [^\r\n]{1,2000} HTTP/1\.[01](\r?\n|\Z)")
_RESPONSE: Final = re.compile(rb"HTTP/1\.([01]) (\d{3})[ \r\n]")
_CONTENT_LENGTH: Final = re.compile(rb"(?i)\ncontent-length:[ \t]*(\d{1,15})[ \t]*(\r?\n|\Z)")
_SELF_DELIMITED: Final = re.compile(rb"(?i)\n(transfer-encoding:|connection:[ \t]*(close|upgrade))")


def missing_of_request(data: bytes, size: int) -> str:
    """Return what an HTTP request lacks; "" if it is complete, or is none.

    Args:
        data: the first bytes of what was sent.
        size: the number of bytes that were sent.
    """
    if not _REQUEST.match(data):
        return ""
    header, separator, _ = data.partition(b"\r\n\r\n")
    if not separator:
        return "the empty line that ends the header" if b"\n\n" not in data and len(data) == size else ""
    return _missing_of_body(header, size)


def body_of_whole_request(data: bytes, size: int) -> int:
    """Return the size of the body that an HTTP request announces, if all of it was sent; otherwise 0.

    Args:
        data: the first bytes of what was sent.
        size: the number of bytes that were sent.
    """
    header, separator, _ = data.partition(b"\r\n\r\n")
    length = _CONTENT_LENGTH.search(header + b"\r\n") if separator and _REQUEST.match(data) else None
    return int(length[1]) if length is not None and not _missing_of_body(header, size) else 0


def is_whole_response(data: bytes, size: int) -> bool:
    """Return whether the bytes are an HTTP response whose end the client knows, and all of it."""
    is_http = b"\r\n\r\n" in data and _RESPONSE.match(data) is not None
    return is_http and not missing_of_response(data, size, b"")


def missing_of_response(data: bytes, size: int, request: bytes) -> str:
    """Return what an HTTP response to a request lacks so that its end is known; "" if nothing."""
    start = _RESPONSE.match(data)
    if start is None or request.startswith(b"HEAD "):
        return ""
    header, separator, _ = data.partition(b"\r\n\r\n")
    if not separator:
        return "the empty line that ends the header" if b"\n\n" not in data and len(data) == size else ""
    if start[2].startswith(b"1") or start[2] in (b"204", b"304"):
        return ""
    if _CONTENT_LENGTH.search(header + b"\r\n") is not None:
        return _missing_of_body(header, size)
    is_delimited = _SELF_DELIMITED.search(header) is not None
    return "" if is_delimited else "Content-Length and Transfer-Encoding"


def _missing_of_body(header: bytes, size: int) -> str:
    length = _CONTENT_LENGTH.search(header + b"\r\n")
    lacking = int(length[1]) - (size - len(header) - 4) if length else 0
    if lacking <= 0:
        return ""
    return f"{lacking:,} of the {int(length[1]):,} bytes that Content-Length announces" if length else ""
