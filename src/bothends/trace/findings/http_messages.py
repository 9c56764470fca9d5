"""What HTTP/1.1 messages lack: a blank line, a length, bytes of the body (RFC 9112, section 6.3). Pure."""

from __future__ import annotations

import re
from typing import Final

_REQUEST: Final = re.compile(rb"[A-Z]{3,10} [^\r\n]{1,2000} HTTP/1\.[01](\r?\n|\Z)")
_REQUEST_LINE: Final = re.compile(rb"(?m)^[A-Z]{3,10} [^\r\n]{1,2000} HTTP/1\.[01]\r?$")
_WITH_BODY: Final = re.compile(rb"(POST|PUT|PATCH) [^\r\n]{1,2000} HTTP/1\.1\r\n")
_RESPONSE: Final = re.compile(rb"HTTP/1\.([01]) (\d{3})[ \r\n]")
_CONTENT_LENGTH: Final = re.compile(rb"(?i)\ncontent-length:[ \t]*(\d{1,15})[ \t]*(\r?\n|\Z)")
_CHUNKED: Final = re.compile(rb"(?i)\ntransfer-encoding:[^\r\n]*chunked[ \t]*(\r?\n|\Z)")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(;[^\r\n]*)?\r\n")
_EXPECTS_CONTINUE: Final = re.compile(rb"(?i)\nexpect:[ \t]*100-continue[ \t]*(\r?\n|\Z)")
_SELF_DELIMITED: Final = re.compile(rb"(?i)\n(transfer-encoding:|connection:[ \t]*(close|upgrade))")
_CLOSES: Final = re.compile(rb"(?i)\n(connection:[^\r\n]*\b(close|upgrade)|upgrade:)")


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
        return _missing_of_header(data, size)
    if _CHUNKED.search(header + b"\r\n") is not None:
        return _missing_of_chunks(data[len(header) + 4 :]) if len(data) == size else ""
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


def ends_with_last_chunk(data: bytes, size: int, end: bytes) -> bool:
    """Return whether an HTTP request has a chunked body, all of which was sent.

    Args:
        data: the first bytes of what was sent.
        size: the number of bytes that were sent.
        end: the bytes of the last call, which show the last chunk if the first bytes do not reach it.
    """
    header, separator, body = data.partition(b"\r\n\r\n")
    if not separator or not _REQUEST.match(data) or _CHUNKED.search(header + b"\r\n") is None:
        return False
    if len(data) < size:
        return end.endswith(b"\r\n0\r\n\r\n") or end == b"0\r\n\r\n"
    return body.endswith(b"0\r\n\r\n") and not _missing_of_chunks(body)


def expects_continue(data: bytes, size: int) -> bool:
    """Return whether a request has only a header so far, and asks for 100 Continue before its body.

    Args:
        data: the first bytes of what was sent.
        size: the number of bytes that were sent.
    """
    header, separator, body = data.partition(b"\r\n\r\n")
    is_header = bool(separator) and not body and len(data) == size and _REQUEST.match(data) is not None
    return is_header and _EXPECTS_CONTINUE.search(header + b"\r\n") is not None


def why_without_body(request: bytes, response: bytes, size: int) -> str:
    """Return why a response has no body, if its header is all that came; otherwise "".

    Args:
        request: what the client had sent.
        response: the first bytes of what it received since.
        size: the number of bytes that it received.
    """
    start = _RESPONSE.match(response)
    if start is None or len(response) != size or not response.endswith(b"\r\n\r\n"):
        return ""
    if response.count(b"\r\n\r\n") != 1 or len(_REQUEST_LINE.findall(request)) != 1:
        return ""
    if start[2] in (b"204", b"304"):
        return f"a response with the status {start[2].decode()} has no body"
    return "a response to HEAD has no body" if request.startswith(b"HEAD ") else ""


def rest_after_request_without_length(data: bytes) -> bytes:
    """Return what follows a request that announces no body and is no request either; b"" if nothing does.

    Args:
        data: the first bytes of what was sent.
    """
    header, separator, rest = data.partition(b"\r\n\r\n")
    if not separator or _WITH_BODY.match(data) is None or not rest.strip():
        return b""
    lines = header + b"\r\n"
    if _CONTENT_LENGTH.search(lines) or _SELF_DELIMITED.search(lines):
        return b""
    return b"" if re.match(rb"\s*[A-Z]{3,10} ", rest) else rest


def is_whole_request(data: bytes, size: int) -> bool:
    """Return whether the bytes are an HTTP request, and all of it."""
    is_http = b"\r\n\r\n" in data and _REQUEST.match(data) is not None
    return is_http and not missing_of_request(data, size)


def is_whole_response(data: bytes, size: int) -> bool:
    """Return whether the bytes are an HTTP response whose end the client knows, and all of it."""
    is_http = b"\r\n\r\n" in data and _RESPONSE.match(data) is not None
    return is_http and not missing_of_response(data, size, b"")


def leaves_connection_open(request: bytes, response: bytes, size: int) -> bool:
    """Return whether a response is the whole answer to one request, after which the connection stays open.

    Args:
        request: what the client sent.
        response: the first bytes of what it received since.
        size: the number of bytes that it received.
    """
    start = _RESPONSE.match(response)
    if start is None or start[1] != b"1" or start[2] < b"200" or not is_whole_response(response, size):
        return False
    lines = _REQUEST_LINE.findall(request)
    header = response.partition(b"\r\n\r\n")[0]
    is_one = len(lines) == 1 and _REQUEST.match(request) is not None and b" HTTP/1.1" in request
    return is_one and not any(_CLOSES.search(each) for each in (request, header))


def is_whole_http_send(data: bytes, size: int) -> bool:
    """Return whether a send of `size` bytes is a header and the body that it announces.

    Args:
        data: the first bytes of the send.
        size: the number of bytes that were sent.
    """
    header, separator, _ = data.partition(b"\r\n\r\n")
    length = _CONTENT_LENGTH.search(header + b"\r\n") if separator else None
    is_http = _REQUEST.match(data) is not None or _RESPONSE.match(data) is not None
    return is_http and length is not None and size <= len(header) + 4 + int(length[1])


def missing_of_response(data: bytes, size: int, request: bytes) -> str:
    """Return what an HTTP response to a request lacks so that its end is known; "" if nothing."""
    start = _RESPONSE.match(data)
    if start is None or request.startswith(b"HEAD "):
        return ""
    header, separator, _ = data.partition(b"\r\n\r\n")
    if not separator:
        return _missing_of_header(data, size)
    if start[2].startswith(b"1") or start[2] in (b"204", b"304"):
        return ""
    if _CONTENT_LENGTH.search(header + b"\r\n") is not None:
        return _missing_of_body(header, size)
    if _CHUNKED.search(header + b"\r\n") is not None:
        return _missing_of_chunks(data[len(header) + 4 :]) if len(data) == size else ""
    is_delimited = _SELF_DELIMITED.search(header) is not None
    return "" if is_delimited else "Content-Length and Transfer-Encoding"


def body_lengths(data: bytes, size: int, request: bytes) -> tuple[int, int] | None:
    """Return the length of a response's body, as announced and as sent after the header.

    Returns None without a Content-Length, or if the response has no body, or if another one follows it.

    Args:
        data: the first bytes of what was sent.
        size: the number of bytes that were sent.
        request: what the peer had sent.
    """
    start = _RESPONSE.match(data)
    header, separator, _ = data.partition(b"\r\n\r\n")
    if start is None or not separator or start[2].startswith(b"1") or start[2] in (b"204", b"304"):
        return None
    length = _CONTENT_LENGTH.search(header + b"\r\n")
    if length is None or request.startswith(b"HEAD ") or len(_REQUEST_LINE.findall(request)) != 1:
        return None
    end = len(header) + 4 + int(length[1])
    following = data[end : end + 5]
    if size > end and following and (b"HTTP/".startswith(following) or not data[end:].strip()):
        return None  # the next response; clients skip empty lines
    return int(length[1]), size - len(header) - 4


def _missing_of_header(data: bytes, size: int) -> str:
    if len(data) != size:
        return ""
    if b"\n\n" in data:
        return "an empty line in the form that HTTP has, \\r\\n\\r\\n: its lines end with \\n alone"
    return "the empty line that ends the header"


def _missing_of_chunks(body: bytes) -> str:
    """Return what a chunked body lacks (RFC 9112, section 7.1)."""
    at = 0
    while at < len(body):
        size = _CHUNK_SIZE.match(body, at)
        if size is None:
            return ""
        if not int(size[1], 16):
            return "" if b"\r\n\r\n" in body[size.end() - 2 :] else "the empty line after the last chunk"
        at = size.end() + int(size[1], 16) + 2
    return "the last chunk, 0\\r\\n\\r\\n" if at == len(body) else "a part of its last chunk"


def _missing_of_body(header: bytes, size: int) -> str:
    length = _CONTENT_LENGTH.search(header + b"\r\n")
    lacking = int(length[1]) - (size - len(header) - 4) if length else 0
    if lacking <= 0:
        return ""
    return f"{lacking:,} of the {int(length[1]):,} bytes that Content-Length announces" if length else ""
