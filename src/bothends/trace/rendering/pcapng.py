"""Packets as a file that Wireshark and tshark open, with a comment on each: whose call it came of. Pure.

The format is pcapng (draft-ietf-opsawg-pcapng): a section header, one interface (on a wire of ours one for
each host), and an enhanced packet block for each packet. The link type is RAW: what is captured begins with
IP's header.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

from bothends.trace.model import Call, Packet, Trace
from bothends.trace.rendering import formatting

_SECTION_HEADER_BLOCK: Final = 0x0A0D0D0A
_INTERFACE_BLOCK: Final = 1
_ENHANCED_PACKET_BLOCK: Final = 6
_BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
_LINKTYPE_RAW: Final = 101
# Options: their codes in the blocks where they stand.
_OPT_ENDOFOPT: Final = 0
_OPT_COMMENT: Final = 1
_SHB_USERAPPL: Final = 4
_IF_NAME: Final = 2
_IF_TSRESOL: Final = 9
_NANOSECONDS: Final = 9  # 10**-9 seconds


class PcapngWriter:
    """Writes packets of a trace, each when it is told."""

    def __init__(self, file: BinaryIO, trace: Trace) -> None:
        self._file = file
        self._trace = trace
        version = struct.pack("<IHHq", _BYTE_ORDER_MAGIC, 1, 0, -1)
        self._block(_SECTION_HEADER_BLOCK, version + _options((_SHB_USERAPPL, b"bothends trace")))
        self._interfaces: dict[str, int] = {}

    def write(self, packet: Packet, *, arrives: bool = False) -> None:
        """Write a packet as it was seen. On a wire of ours it is seen twice, at the interface of each host:
        when it leaves, and when it `arrives`, if it does.
        """
        if not packet.raw or (arrives and packet.lost) or (packet.made and not arrives):
            return
        at = packet.until if arrives and packet.until is not None else packet.at
        where = (packet.reaches if arrives else packet.interface) if packet.reaches else "bothends"
        head = struct.pack(
            "<IIIII",
            self._interface(where),
            at >> 32,
            at & 0xFFFFFFFF,
            len(packet.raw),
            max(packet.length, len(packet.raw)),
        )
        comment = comment_of(packet, self._trace).encode("utf-8", "replace")
        self._block(
            _ENHANCED_PACKET_BLOCK,
            head + _padded(packet.raw) + (_options((_OPT_COMMENT, comment)) if comment else b""),
        )

    def flush(self) -> None:
        """Let what was written be in the file."""
        self._file.flush()

    def _interface(self, name: str) -> int:
        """The number of an interface. A new one may be described anywhere before its first packet."""
        if name not in self._interfaces:
            self._interfaces[name] = len(self._interfaces)
            options = _options((_IF_NAME, name.encode()), (_IF_TSRESOL, bytes([_NANOSECONDS])))
            self._block(_INTERFACE_BLOCK, struct.pack("<HHI", _LINKTYPE_RAW, 0, 0) + options)
        return self._interfaces[name]

    def _block(self, kind: int, body: bytes) -> None:
        length = struct.pack("<I", len(body) + 12)
        self._file.write(struct.pack("<I", kind) + length + body + length)


def comment_of(packet: Packet, trace: Trace) -> str:
    """Which calls a packet came of, and which it fed: process, descriptor and call of each; may be empty."""
    came = [_call_label(trace, link.cause) for link in trace.causes_of(packet.number)]
    fed = [_call_label(trace, link.effect) for link in trace.effects_of(packet.number)]
    parts = [("from " + ", ".join(filter(None, came))) if any(came) else ""]
    parts += [("to " + ", ".join(filter(None, fed))) if any(fed) else ""]
    parts += [f"lost on the wire: {packet.lost}" if packet.lost else ""]
    again = trace.event(packet.repeats) if packet.repeats is not None else None
    parts += [f"sent again after {formatting.duration(packet.at - again.at)}" if again is not None else ""]
    return "; ".join(filter(None, parts))


def _call_label(trace: Trace, number: int) -> str:
    call = trace.event(number)
    if not isinstance(call, Call):
        return ""
    process = trace.processes.get(call.process)
    whose = f"{process.role} (pid {process.pid})" if process is not None else "?"
    if call.descriptor is not None:
        whose += f", descriptor {call.descriptor}"
    return f"{whose}: {formatting.call_text(call)}"


def _options(*options: tuple[int, bytes]) -> bytes:
    parts = [struct.pack("<HH", code, len(value[:65000])) + _padded(value[:65000]) for code, value in options]
    return b"".join(parts) + struct.pack("<HH", _OPT_ENDOFOPT, 0)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
