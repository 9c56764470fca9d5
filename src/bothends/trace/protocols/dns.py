"""DNS: queries and replies (RFC 1035, section 4), over UDP, and over TCP after their length. Pure."""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple

MAX_ADDRESSES: Final = 3  # of a reply that are shown
_TYPES: Final = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 43: "DS",
    48: "DNSKEY", 64: "SVCB", 65: "HTTPS", 255: "ANY",
}  # fmt: skip
_CODES: Final = {1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
_IN: Final = 1
_OPT: Final = 41
_A, _AAAA = 1, 28


class _Record(NamedTuple):
    type: int
    data: bytes
    end: int


def recognise(data: bytes, size: int) -> str:
    """Return the query or the reply that bytes are; "" if they are none."""
    if len(data) == size and 17 <= size <= 4096:
        if size > 19 and int.from_bytes(data[:2], "big") == size - 2 and (text := _message(data[2:])):
            return text
        return _message(data)
    return ""


def _message(data: bytes) -> str:
    flags, questions, answers, authorities, others = (
        int.from_bytes(data[at : at + 2], "big") for at in range(2, 12, 2)
    )
    is_reply, operation, code = flags >> 15, flags >> 11 & 15, flags & 15
    if (
        questions != 1
        or operation != 0
        or flags & 0x40
        or (not is_reply and (answers or authorities or code))
    ):
        return ""
    name, at = _name(data, 12)
    if at == 0 or at + 4 > len(data):
        return ""
    kind, network = int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big")
    if kind not in _TYPES or network != _IN:
        return ""
    at += 4
    records: list[_Record] = []
    for _ in range(min(answers + authorities + others, 200)):
        record = _record(data, at)
        if record is None:
            return ""
        records.append(record)
        at = record.end
    if at != len(data) or (not is_reply and any(each.type != _OPT for each in records)):
        return ""
    asked = f"{_TYPES[kind]} {name}"
    if not is_reply:
        return f"DNS query {asked}"
    found = [_address(each) for each in records[:answers] if each.type in (_A, _AAAA)]
    shown = ", ".join(found[:MAX_ADDRESSES]) + (", …" if len(found) > MAX_ADDRESSES else "")
    result = shown if code == 0 else _CODES.get(code, f"code {code}")
    return f"DNS reply {asked}: {result or f'{answers} records'}"


def _name(data: bytes, at: int) -> tuple[str, int]:
    """Return a name and where it ends; the end 0 if it is none."""
    labels: list[str] = []
    end = 0
    for _ in range(128):
        if at >= len(data):
            return "", 0
        length = data[at]
        if length == 0:
            return ".".join(labels) or ".", end or at + 1
        if length >> 6 == 3 and at + 1 < len(data):
            end = end or at + 2
            target = (length & 63) << 8 | data[at + 1]
            if target >= at:
                return "", 0
            at = target
            continue
        if length > 63 or at + 1 + length > len(data):
            return "", 0
        label = data[at + 1 : at + 1 + length]
        if not all(32 < byte < 127 for byte in label):
            return "", 0
        labels.append(label.decode("ascii"))
        at += 1 + length
    return "", 0


def _record(data: bytes, at: int) -> _Record | None:
    _, at = _name(data, at)
    if at == 0 or at + 10 > len(data):
        return None
    end = at + 10 + int.from_bytes(data[at + 8 : at + 10], "big")
    return (
        _Record(int.from_bytes(data[at : at + 2], "big"), data[at + 10 : end], end)
        if end <= len(data)
        else None
    )


def _address(record: _Record) -> str:
    return str(ipaddress.ip_address(record.data)) if len(record.data) in (4, 16) else "?"
