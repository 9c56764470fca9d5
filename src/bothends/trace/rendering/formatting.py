"""A call and a packet in one line of text: what every picture shows of them. Pure.

    bind(3, 0.0.0.0:12000)      recvfrom(4, 1024) = 5 "hello"      SYN ACK      PSH ACK 0-5 "hello"

Whatever a peer or a program may have chosen has been through `text.escape`.
"""

from __future__ import annotations

import unicodedata
from typing import Final

from bothends.escaping import escape, escape_text
from bothends.trace.capture.calls import ACCEPTING, FORKING, REAPING, RECEIVING, SENDING
from bothends.trace.model import Call, Packet

PREVIEW_BYTES: Final = 40  # bytes of data that a line shows


def quoted(data: bytes, size: int | None = None, limit: int = PREVIEW_BYTES) -> str:
    """The start of some data, in quotes; with an ellipsis where `size` says that there is more."""
    whole = len(data) if size is None else size
    return f'"{escape(data[:limit])}"' + ("…" if whole > min(len(data), limit) else "")


def call_text(call: Call, *, ended: bool = True) -> str:
    """A call, with what it returned where it has."""
    text = f"{call.name}({', '.join(_arguments(call))})"
    if not ended:
        return text
    return text + _result(call)


def descriptor_text(call: Call) -> str:
    """Whose call it is: its descriptor, or what is said instead where none was seen."""
    if call.descriptor is None and call.arguments:
        return call.arguments[0]
    return str(call.descriptor)


def _arguments(call: Call) -> tuple[str, ...]:
    words, name = call.arguments, call.name
    who = descriptor_text(call)
    if name in ("bind", "connect") and call.place is not None:
        return who, str(call.place)
    if name in ACCEPTING or name in ("close", "getsockname", "getpeername"):
        return (who,)
    if name in SENDING and not call.messages and name not in ("sendfile", "splice"):
        size = call.asked if call.asked is not None else len(call.data)
        to = (f"to {call.place}",) if call.place is not None else ()
        return who, quoted(call.data, size), str(size), *_flags(call), *to
    if name in RECEIVING and not call.messages:
        return who, *((str(call.asked),) if call.asked is not None else ()), *_flags(call)
    if call.messages:
        return who, f"{len(call.messages)} messages", *_flags(call)
    if name in ("socket", "socketpair"):
        return words[:2] if words[2:3] in ((), ("0",), ("IPPROTO_IP",)) else words[:3]
    if name in FORKING:
        return ()
    if name in REAPING or name == "epoll_ctl":
        return words[: 1 if name in REAPING else 3]
    return words


def _flags(call: Call) -> tuple[str, ...]:
    flags = sorted(each for each in call.flags if each.startswith("MSG_") and each != "MSG_NOSIGNAL")
    return ("|".join(flags),) if flags else ()


def _result(call: Call) -> str:
    if call.until is None and call.result is None:
        return " …"
    if call.error:
        return f" = {call.error}"
    if call.result is None:
        return ""
    if call.name in RECEIVING:
        if call.size == 0 and call.asked != 0:
            return " = 0, the end" if call.place is None else " = 0"
        came = f" from {call.place}" if call.place is not None else ""
        return f" = {call.result} {quoted(call.data, call.size)}{came}"
    if call.name in ACCEPTING:
        return f" = {call.result}" + (
            f" from {call.place}" if call.place is not None and call.place.host else ""
        )
    if call.result == 0 and call.name == "connect":
        return " = 0"
    if call.result == 0 and call.name not in (
        "select",
        "pselect6",
        "poll",
        "ppoll",
        "epoll_wait",
        "epoll_pwait",
    ):
        return ""
    return f" = {call.result}"


def has_trivial_result(call: Call) -> bool:
    """Whether the end of a call says nothing that its beginning did not: it did as it was told."""
    if call.failed or call.result is None:
        return False
    if call.name in SENDING:
        return call.asked is not None and call.size == call.asked
    return call.result == 0 and call.name in ("close", "shutdown", "bind", "listen", "setsockopt")


def packet_text(packet: Packet) -> str:
    """A packet: its flags, offsets, and the start of its data."""
    if packet.protocol == "udp":
        return f"UDP {packet.size} bytes {quoted(packet.data, packet.size)}"
    text, again = " ".join(packet.flags), " (again)" if packet.resent else ""
    if packet.size:
        offset = packet.offset or 0
        text += f" {offset}-{offset + packet.size}{again} {quoted(packet.data, packet.size)}"
    elif packet.flags == ("ACK",) and packet.acks is not None:
        text += f" {packet.acks}"
    else:
        text += again
    return text


def duration(nanoseconds: int) -> str:
    """A length of time as a person says it: `1.2 s`, `40 ms`, `15 us`."""
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds // 1000} us"


def display_width(text: str) -> int:
    """How many columns a terminal needs for it."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1
        for each in text
    )


def truncate(text: str, columns: int) -> str:
    """The text, or its beginning and an ellipsis, in so many columns."""
    if display_width(text) <= columns:
        return text
    while text and display_width(text) > columns - 1:
        text = text[: max(columns - 1, 0)] if len(text) > columns else text[:-1]
    return text + "…" if columns > 0 else ""


def escape_line(text: str) -> str:
    """A command line or another text of the user's, on one line and without controls."""
    return escape_text(text)
