"""A rule about the opening handshake of WebSocket (RFC 6455, section 4.2.2). Pure."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from typing import Final

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.turns import both_ends, turns
from bothends.trace.rendering import formatting

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY: Final = re.compile(rb"(?im)^Sec-WebSocket-Key:[ \t]*([^\r\n]*?)[ \t]*\r?$")
_ACCEPT: Final = re.compile(rb"(?im)^Sec-WebSocket-Accept:[ \t]*([^\r\n]*?)[ \t]*\r?$")
_SWITCHING: Final = re.compile(rb"HTTP/1\.1 101[ \r]")


def websocket_accept(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a WebSocket handshake whose Sec-WebSocket-Accept does not match the key of the request."""
    done = set[int]()
    for socket in trace_index.sockets("stream"):
        if socket.number in done:
            continue
        spoken = turns(trace_index, socket)[:2]
        if len(spoken) < 2 or not _SWITCHING.match(spoken[1].data) or b"\r\n\r\n" not in spoken[1].data:
            continue
        done.update(both_ends(trace_index, socket))
        key, accept = _KEY.search(spoken[0].data), _ACCEPT.search(spoken[1].data)
        if key is None:
            continue
        expected = _accept_of(key[1])
        if accept is not None and accept[1] == expected:
            continue
        is_server = spoken[1].kind == "sent"
        response = spoken[1].calls[0]
        server = name_of(trace_index, response.process) if is_server else "the server"
        has = formatting.quoted(accept[1], len(accept[1]), 60) if accept is not None else "no such header"
        yield Finding(
            "websocket-accept",
            "The Sec-WebSocket-Accept of a handshake does not match the key",
            f"{capitalized(server)} answered the key {formatting.quoted(key[1], len(key[1]), 40)} with "
            f"{has}; it must be {formatting.quoted(expected, len(expected), 40)}. {_reason(key[1], accept)}A "
            "client then fails the connection.",
            "Append the GUID of RFC 6455 to the key as it was sent, take SHA-1, and encode its 20 bytes in "
            "Base64: not its digits in hexadecimal.",
            (spoken[0].calls[0].number, response.number),
            process=response.process if is_server else None,
            sockets=both_ends(trace_index, socket),
            in_c="SHA1(key_and_guid, length, digest); EVP_EncodeBlock(accept, digest, 20);",
            in_python="accept = base64.b64encode(hashlib.sha1(key + GUID).digest())",
        )


def _accept_of(key: bytes) -> bytes:
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def _reason(key: bytes, accept: re.Match[bytes] | None) -> str:
    """Return the mistake that gives this value, as a sentence, or ""."""
    digest = hashlib.sha1(key + _GUID, usedforsecurity=False)
    known = {
        base64.b64encode(digest.hexdigest().encode()): "It is Base64 of the digits in hexadecimal. ",
        digest.hexdigest().encode(): "It is in hexadecimal. ",
        base64.b64encode(hashlib.sha1(key, usedforsecurity=False).digest()): "The GUID is missing in it. ",
        _accept_of(b" " + key): "The space before the key is counted in it. ",
        _accept_of(key + b"\r"): "The CR after the key is counted in it. ",
        key: "It is the key itself. ",
    }
    return known.get(accept[1], "") if accept is not None else ""
