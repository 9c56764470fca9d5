"""TLS: the records that bytes begin with, as far as they can be read from outside. Pure.

    TLS ClientHello for example.org      TLS Alert handshake_failure      TLS Application Data 250 bytes

The records are those of RFC 8446, section 5; their messages those of section 4.
"""

from __future__ import annotations

from typing import Final

from bothends.escaping import escape
from bothends.trace.protocols.tls_records import (
    ALERT,
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    CONTENT_TYPES,
    HEADER_SIZE,
    alert_text,
)

MAX_SHOWN: Final = 3  # records
_MAX_LENGTH: Final = 16384 + 2048  # RFC 5246, section 6.2.3
_MESSAGES: Final = {
    0: "HelloRequest", 1: "ClientHello", 2: "ServerHello", 4: "NewSessionTicket", 8: "EncryptedExtensions",
    11: "Certificate", 12: "ServerKeyExchange", 13: "CertificateRequest", 14: "ServerHelloDone",
    15: "CertificateVerify", 16: "ClientKeyExchange", 20: "Finished", 22: "CertificateStatus",
}  # fmt: skip
_SERVER_NAME: Final = 0  # RFC 6066, section 3


def recognise(data: bytes, size: int) -> str:
    """Return the records that bytes begin with; "" if they are not TLS."""
    found: list[str] = []
    at, count, is_encrypted = 0, 0, False
    while at + HEADER_SIZE <= len(data):
        kind, length = data[at], int.from_bytes(data[at + 3 : at + 5], "big")
        if kind not in CONTENT_TYPES or data[at + 1] != 3 or data[at + 2] > 4:
            break
        if not 0 < length <= _MAX_LENGTH or (kind == CHANGE_CIPHER_SPEC and length != 1):
            break
        body = data[at + HEADER_SIZE : at + HEADER_SIZE + length]
        text = _record(kind, data[at : at + HEADER_SIZE], body, length, is_encrypted=is_encrypted)
        if not text:
            break
        is_encrypted = is_encrypted or kind == CHANGE_CIPHER_SPEC
        count += 1
        if len(found) < MAX_SHOWN:
            found.append(text)
        at += HEADER_SIZE + length
    if not found or (at < len(data) and at + HEADER_SIZE <= len(data)):
        return ""
    more = f" and {count - MAX_SHOWN} more" if count > MAX_SHOWN else ""
    return f"TLS {'header: ' if size == HEADER_SIZE else ''}{', '.join(found)}{more}"


def _record(kind: int, header: bytes, body: bytes, length: int, *, is_encrypted: bool) -> str:
    if kind == APPLICATION_DATA:
        return f"Application Data {length} bytes"
    if kind == CHANGE_CIPHER_SPEC:
        return "ChangeCipherSpec" if body in (b"", b"\1") else ""
    if kind == ALERT:
        if length == 2 and len(body) == 2 and not is_encrypted:
            return f"Alert {alert_text(header + body)}"
        return "Alert" if length == 2 else f"Alert, encrypted, {length} bytes"
    if len(body) < 4 or is_encrypted:
        return f"Handshake {length} bytes"
    name = _MESSAGES.get(body[0])
    inner = int.from_bytes(body[1:4], "big")
    if name is None or inner > 1 << 20 or (inner + 4 > length and length < 16000):
        return f"Handshake {length} bytes"
    if name == "ClientHello" and (host := server_name(body)):
        return f"ClientHello for {escape(host)}"
    return name


def server_name(hello: bytes) -> bytes:
    """Return the name of the server that a ClientHello asks for (RFC 6066, section 3); b"" if it has none."""
    at = 4 + 2 + 32
    for width in (1, 2, 1):  # the session, the cipher suites, the compression methods
        if at + width > len(hello):
            return b""
        at += width + int.from_bytes(hello[at : at + width], "big")
    at += 2
    while at + 4 <= len(hello):
        kind, length = (
            int.from_bytes(hello[at : at + 2], "big"),
            int.from_bytes(hello[at + 2 : at + 4], "big"),
        )
        body = hello[at + 4 : at + 4 + length]
        if kind == _SERVER_NAME:
            size = int.from_bytes(body[3:5], "big")
            name = body[5 : 5 + size]
            return name if len(name) == size and size else b""
        at += 4 + length
    return b""
