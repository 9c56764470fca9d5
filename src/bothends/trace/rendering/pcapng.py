"""Write packets as a pcapng file for Wireshark and tshark, each with a comment that names its calls. Pure.

The format (draft-ietf-opsawg-pcapng): a section header block, an interface description block (on a wire, one
for each host), and an enhanced packet block for each packet. The link type is RAW, because the packets start
with the IP header.
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
# Option codes, which depend on the block.
_OPT_ENDOFOPT: Final = 0
_OPT_COMMENT: Final = 1
_SHB_USERAPPL: Final = 4
_IF_NAME: Final = 2
_IF_TSRESOL: Final = 9
_NANOSECONDS: Final = 9  # 10**-9 seconds


class PcapngWriter:
    """Writes the packets of a trace, incrementally."""

    def __init__(self, file: BinaryIO, trace: Trace) -> None:
        self._file = file
        self._trace = trace
        version = struct.pack("<IHHq", _BYTE_ORDER_MAGIC, 1, 0, -1)
        self._block(_SECTION_HEADER_BLOCK, version + _options((_SHB_USERAPPL, b"bothends trace")))
        self._interfaces: dict[str, int] = {}

    def write(self, packet: Packet, *, arrives: bool = False) -> None:
        """Write a packet. On a wire it is written twice, once for each host: sent, and `arrives`."""
        if not packet.raw or (arrives and packet.lost) or (packet.synthesized and not arrives):
            return
        at = packet.until if arrives and packet.until is not None else packet.at
        interface = (packet.reaches if arrives else packet.interface) if packet.reaches else "bothends"
        head = struct.pack(
            "<IIIII",
            self._interface(interface),
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
        """Flush the file's buffer."""
        self._file.flush()

    def _interface(self, name: str) -> int:
        """Return the number of an interface. A new one is described first, just before its first packet."""
        if name not in self._interfaces:
            self._interfaces[name] = len(self._interfaces)
            options = _options((_IF_NAME, name.encode()), (_IF_TSRESOL, bytes([_NANOSECONDS])))
            self._block(_INTERFACE_BLOCK, struct.pack("<HHI", _LINKTYPE_RAW, 0, 0) + options)
        return self._interfaces[name]

    def _block(self, kind: int, body: bytes) -> None:
        length = struct.pack("<I", len(body) + 12)
        self._file.write(struct.pack("<I", kind) + length + body + length)


def comment_of(packet: Packet, trace: Trace) -> str:
    """Describe the calls that sent and received a packet: process, descriptor, call. May be empty."""
    causes = [_call_label(trace, link.cause) for link in trace.causes_of(packet.number)]
    effects = [_call_label(trace, link.effect) for link in trace.effects_of(packet.number)]
    parts = [("from " + ", ".join(filter(None, causes))) if any(causes) else ""]
    parts += [("to " + ", ".join(filter(None, effects))) if any(effects) else ""]
    parts += [f"lost on the wire: {packet.lost}" if packet.lost else ""]
    original = trace.event(packet.repeats) if packet.repeats is not None else None
    if original is not None:
        parts += [f"retransmission, after {formatting.duration(packet.at - original.at)}"]
    return "; ".join(filter(None, parts))


def _call_label(trace: Trace, number: int) -> str:
    call = trace.event(number)
    if not isinstance(call, Call):
        return ""
    process = trace.processes.get(call.process)
    caller = f"{process.role} (pid {process.pid})" if process is not None else "?"
    if call.descriptor is not None:
        caller += f", descriptor {call.descriptor}"
    return f"{caller}: {formatting.call_text(call)}"


def _options(*options: tuple[int, bytes]) -> bytes:
    parts = [struct.pack("<HH", code, len(value[:65000])) + _padded(value[:65000]) for code, value in options]
    return b"".join(parts) + struct.pack("<HH", _OPT_ENDOFOPT, 0)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
