"""The records of TLS, as far as they can be seen in a stream from outside (RFC 8446, section 5). Pure.

A record has a header of 5 bytes: its type, a version (03 01 to 03 04), and the length of what follows. From
the end of the handshake the contents are encrypted. In TLS 1.3 the type is then always 23, and an alert shows
by its length only: 2 bytes, 1 for the hidden type, and 16 for the tag.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from bothends.trace.model import Call

HEADER_SIZE: Final = 5
CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
CONTENT_TYPES: Final = range(CHANGE_CIPHER_SPEC, APPLICATION_DATA + 1)  # RFC 8446, section 5.1
_CLIENT_HELLO: Final = 1
_ENCRYPTED_ALERT: Final = (
    19  # bytes of an alert in TLS 1.3: a record of data with 2 bytes has the same length
)

# RFC 8446, section 6, and of TLS 1.2 no_renegotiation.
_ALERTS: Final = {
    0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 22: "record_overflow",
    40: "handshake_failure", 42: "bad_certificate", 43: "unsupported_certificate", 44: "certificate_revoked",
    45: "certificate_expired", 46: "certificate_unknown", 47: "illegal_parameter", 48: "unknown_ca",
    49: "access_denied", 50: "decode_error", 51: "decrypt_error", 70: "protocol_version",
    71: "insufficient_security", 80: "internal_error", 86: "inappropriate_fallback", 90: "user_canceled",
    100: "no_renegotiation", 109: "missing_extension", 110: "unsupported_extension",
    112: "unrecognized_name", 113: "bad_certificate_status_response", 115: "unknown_psk_identity",
    116: "certificate_required", 120: "no_application_protocol",
}  # fmt: skip


class Record(NamedTuple):
    """A TLS record of a stream: its type, the length of its contents, and how many bytes of them it lacks."""

    type: int
    size: int
    missing: int

    @property
    def may_be_alert(self) -> bool:
        """Whether it is an alert, or may be one that TLS 1.3 encrypted."""
        return self.type == ALERT or (self.type == APPLICATION_DATA and self.size == _ENCRYPTED_ALERT)


def is_record(data: bytes) -> bool:
    """Return whether bytes begin with the header of a record, or with a part of one."""
    return bool(data) and data[0] in CONTENT_TYPES and (len(data) < 2 or data[1] == 3)


def is_client_hello(data: bytes) -> bool:
    """Return whether bytes begin with a ClientHello, the first message of a TLS client."""
    return len(data) >= 6 and is_record(data) and data[0] == HANDSHAKE and data[5] == _CLIENT_HELLO


def alert_text(data: bytes) -> str:
    """Return the alert that bytes begin with, as in "protocol_version"; "" if they begin with none."""
    if len(data) < HEADER_SIZE + 2 or not is_record(data) or data[0] != ALERT or data[3:5] != b"\0\2":
        return ""
    return _ALERTS.get(data[6], f"number {data[6]}")


def alert_of(contents: bytes) -> str:
    """Return the name of an alert that is not encrypted; "" if the contents of a record are none."""
    return _ALERTS.get(contents[1], f"number {contents[1]}") if len(contents) == 2 else ""


def whole_records(data: bytes) -> list[tuple[int, bytes]]:
    """Return the whole records that bytes begin with, each with its type and its contents."""
    found, at = [], 0
    while is_record(data[at : at + HEADER_SIZE]) and len(data) - at >= HEADER_SIZE:
        end = at + HEADER_SIZE + int.from_bytes(data[at + 3 : at + HEADER_SIZE], "big")
        if end > len(data):
            break
        found.append((data[at], data[at + HEADER_SIZE : end]))
        at = end
    return found


def last_record(calls: Iterable[Call]) -> Record | None:
    """Return the last record of the bytes that calls moved, or None if a header is not kept, or is none."""
    record: Record | None = None
    header = b""
    missing = 0  # bytes of the contents of `record`
    for call in calls:
        at = 0
        while at < call.size:
            if missing:
                step = min(missing, call.size - at)
                missing, at = missing - step, at + step
                continue
            if at >= len(call.data):
                return None
            header += call.data[at : at + 1]
            at += 1
            if len(header) == HEADER_SIZE:
                if not is_record(header):
                    return None
                missing = int.from_bytes(header[3:], "big")
                record, header = Record(header[0], missing, missing), b""
    if record is None:
        return None
    return (
        Record(record.type, record.size, HEADER_SIZE - len(header))
        if header
        else record._replace(missing=missing)
    )
