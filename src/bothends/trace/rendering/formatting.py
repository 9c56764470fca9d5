"""Format calls and packets as one line of text, for all pictures. Pure.

    bind(3, 0.0.0.0:12000)      recvfrom(4, 1024) = 5 "hello"      SYN ACK      PSH ACK 0-5 "hello"

Text from peers and programs is escaped (`bothends.escaping`).
"""

from __future__ import annotations

import functools
import unicodedata
from typing import Final

from bothends.escaping import escape, escape_text
from bothends.trace.capture.calls import ACCEPTING, FORKING, REAPING, RECEIVING, SENDING, SLEEPING
from bothends.trace.capture.tls_source import TLS_CALLS, TLS_WRITES
from bothends.trace.model import Call, Packet
from bothends.trace.protocols.table import said

PREVIEW_BYTES: Final = 40  # bytes of data in a line
SPELLED_BYTES: Final = 8  # the same, behind what they say
RESENT_MARK: Final = "(resent)"  # a retransmission
# Results inside the kernel, which no program sees: restart the call, or return EINTR (signal(7)).
INTERRUPTED: Final = {
    "ERESTARTSYS": "interrupted by a signal",
    "ERESTARTNOHAND": "interrupted by a signal",
    "ERESTART_RESTARTBLOCK": "interrupted by a signal",
    "ERESTARTNOINTR": "interrupted by a signal, and restarted",
}


# The same bytes are shown when they are sent, in a packet, and when they are received.
@functools.lru_cache(maxsize=1024)
def spelled(data: bytes, size: int) -> str:
    """Return data quoted, after what it says in a well-known protocol if the bytes do not show that."""
    found = said(data, size)
    if found.is_text:
        return quoted(data, size)
    return f"[{found.text}] {quoted(data, size, SPELLED_BYTES)}"


def quoted(data: bytes, size: int | None = None, limit: int = PREVIEW_BYTES) -> str:
    """Return the first `limit` bytes of data, quoted, with an ellipsis if the full `size` is larger."""
    whole = len(data) if size is None else size
    return f'"{escape(data[:limit])}"' + ("…" if whole > min(len(data), limit) else "")


def call_text(call: Call, *, ended: bool = True) -> str:
    """Return a call, with its result if `ended`. One of libssl is told as what was said in it."""
    if call.name in TLS_CALLS:
        verb = "write" if call.name in TLS_WRITES else "read"
        size = call.requested or call.size
        bytes_moved = "1 byte" if size == 1 else f"{size} bytes"
        return f"TLS {verb} {bytes_moved}: {spelled(call.data, size)}"
    text = f"{call.name}({', '.join(_arguments(call))})"
    if not ended:
        return text
    return text + _result(call)


def descriptor_text(call: Call) -> str:
    """Return the descriptor of a call, or the label that a recorded call has instead."""
    if call.descriptor is None and call.arguments:
        return call.arguments[0]
    return str(call.descriptor)


def _arguments(call: Call) -> tuple[str, ...]:
    arguments, name = call.arguments, call.name
    descriptor = descriptor_text(call)
    if name in RECEIVING and not call.messages:  # these first: most calls are of them
        return descriptor, *((str(call.requested),) if call.requested is not None else ()), *_flags(call)
    if name in SENDING and not call.messages and name not in ("sendfile", "splice"):
        size = call.requested if call.requested is not None else len(call.data)
        to = (f"to {call.address}",) if call.address is not None else ()
        return descriptor, spelled(call.data, size), str(size), *_flags(call), *to
    if name in ("bind", "connect") and call.address is not None:
        return descriptor, str(call.address)
    if name in ACCEPTING or name in ("close", "getsockname", "getpeername"):
        return (descriptor,)
    if call.messages:
        return descriptor, f"{len(call.messages)} messages", *_flags(call)
    if name in ("socket", "socketpair"):
        return arguments[:2] if arguments[2:3] in ((), ("0",), ("IPPROTO_IP",)) else arguments[:3]
    if name in FORKING:
        return ()
    if name in SLEEPING:
        return (duration(call.timeout_ns),) if call.timeout_ns is not None else ()
    if name in REAPING or name == "epoll_ctl":
        return arguments[: 1 if name in REAPING else 3]
    return arguments


def _flags(call: Call) -> tuple[str, ...]:
    if not call.flags:
        return ()
    flags = sorted(each for each in call.flags if each.startswith("MSG_") and each != "MSG_NOSIGNAL")
    return ("|".join(flags),) if flags else ()


def _result(call: Call) -> str:
    if call.until is None and call.result is None:
        return " …"
    if call.error:
        interrupted = INTERRUPTED.get(call.error)
        return f" {interrupted}" if interrupted else f" = {escape_text(call.error)}"
    if call.result is None:
        return ""
    if call.name in RECEIVING:
        if call.size == 0 and call.requested != 0:
            return " = 0 (EOF)" if call.address is None else " = 0"
        source = f" from {call.address}" if call.address is not None else ""
        return f" = {call.result} {spelled(call.data, call.size)}{source}"
    if call.name in ACCEPTING:
        return f" = {call.result}" + (
            f" from {call.address}" if call.address is not None and call.address.host else ""
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
    """Return whether a call simply succeeded, so that drawing its end shows nothing new."""
    if call.failed or call.result is None:
        return False
    if call.name in SENDING:
        return call.requested is not None and call.size == call.requested
    return call.result == 0 and call.name in ("close", "shutdown", "bind", "listen", "setsockopt")


def packet_text(packet: Packet) -> str:
    """Return a packet: its flags, its offsets, and the start of its data."""
    if packet.protocol == "udp":
        return f"UDP {packet.size} bytes {spelled(packet.data, packet.size)}"
    text, resent = " ".join(packet.flags), f" {RESENT_MARK}" if packet.resent else ""
    if packet.size:
        offset = packet.offset or 0
        text += f" {offset}-{offset + packet.size}{resent} {spelled(packet.data, packet.size)}"
    elif packet.flags == ("ACK",) and packet.acks is not None:
        text += f" {packet.acks}"
    else:
        text += resent
    return text


def duration(nanoseconds: int) -> str:
    """Format a duration with a suitable unit: `1.2 s`, `40 ms`, `15 us`."""
    if nanoseconds >= 999_500_000_000:
        return f"{nanoseconds / 1_000_000_000:,.0f} s"
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000)):
        if nanoseconds >= 0.9995 * size:  # three digits: 999.6 ms are 1 s
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds // 1000} us"


def duration_range(low: int, high: int) -> str:
    """Format two durations, as in "38 to 95 us", or one if they look the same."""
    first, last = duration(low), duration(high)
    if first == last:
        return first
    number, _, unit = first.partition(" ")
    return f"{number if last.endswith(' ' + unit) else first} to {last}"


def display_width(text: str) -> int:
    """Return the number of terminal columns of a text."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1
        for each in text
    )


def truncate(text: str, columns: int) -> str:
    """Shorten a text to a number of columns, with an ellipsis if it was longer."""
    if display_width(text) <= columns:
        return text
    while text and display_width(text) > columns - 1:
        text = text[: max(columns - 1, 0)] if len(text) > columns else text[:-1]
    return text + "…" if columns > 0 else ""
