"""Write packets as a pcapng file for Wireshark and tshark, each with a comment that names its calls. Pure.

The format (draft-ietf-opsawg-pcapng): a section header block, interface description blocks (one for each host
of a wire, and for each interface in another network namespace), and an enhanced packet block for each packet.
Secrets of TLS sessions are in decryption secrets blocks before the packets that they decrypt. The link type
is RAW, because the packets start with the IP header. Packets that could not be written are counted in an
interface statistics block.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, Protocol

from bothends.trace.model import Call, Packet, Trace
from bothends.trace.rendering import formatting

_SECTION_HEADER_BLOCK: Final = 0x0A0D0D0A
_INTERFACE_BLOCK: Final = 1
_ENHANCED_PACKET_BLOCK: Final = 6
_STATISTICS_BLOCK: Final = 5
_SECRETS_BLOCK: Final = 10
_TLS_KEY_LOG: Final = 0x544C534B
_ISB_IFDROP: Final = 5
_BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
_LINKTYPE_RAW: Final = 101
# Option codes, which depend on the block.
_OPT_ENDOFOPT: Final = 0
_OPT_COMMENT: Final = 1
_SHB_USERAPPL: Final = 4
_IF_NAME: Final = 2
_IF_TSRESOL: Final = 9
_NANOSECONDS: Final = 9  # 10**-9 seconds


class BinaryFile(Protocol):
    """Where packets are written: a file in binary, or an `ObserverFile`, whose `write` may return False."""

    def write(self, data: bytes, /) -> object:
        """Write whole blocks."""

    def flush(self) -> None:
        """Pass buffered blocks on."""


class PcapngWriter:
    """Writes the packets of a trace, incrementally."""

    def __init__(self, file: BinaryFile, trace: Trace) -> None:
        self._file = file
        self._trace = trace
        self._is_begun = self._file.write(_SECTION_HEADER) is not False
        self._interfaces: dict[str, int] = {}
        self._secrets_written = 0  # lines

    def write(self, packet: Packet, *, arrives: bool = False) -> None:
        """Write a packet. On a wire it is written twice, once for each host: sent, and `arrives`."""
        if not packet.raw or (arrives and packet.lost) or (packet.synthesized and not arrives):
            return
        at = packet.until if arrives and packet.until is not None else packet.at
        seen_at = packet.reaches if arrives else packet.interface
        interface = seen_at if packet.reaches or " in " in seen_at else "bothends"
        start = b"" if self._is_begun else _SECTION_HEADER
        secrets = self._trace.tls_secrets[self._secrets_written :]
        if secrets:
            start += _secrets_block(secrets)
        if interface not in self._interfaces:
            start += _interface_block(interface)
        head = struct.pack(
            "<IIIII",
            self._interfaces.get(interface, len(self._interfaces)),
            at >> 32,
            at & 0xFFFFFFFF,
            len(packet.raw),
            max(packet.length, len(packet.raw)),
        )
        comment = comment_of(packet, self._trace).encode("utf-8", "replace")
        options = _options((_OPT_COMMENT, comment)) if comment else b""
        block = _block(_ENHANCED_PACKET_BLOCK, head + _padded(packet.raw) + options)
        if self._file.write(start + block) is not False:
            self._is_begun = True
            self._secrets_written += len(secrets)
            self._interfaces.setdefault(interface, len(self._interfaces))

    def missing_block(self, count: int, reason: str) -> bytes:
        """Return a block that says in the file that packets are missing there: how many, and why."""
        start = b"" if self._is_begun else _SECTION_HEADER
        if not self._interfaces:
            start += _interface_block("bothends")
        text = f"{count:,} {'packet is' if count == 1 else 'packets are'} missing: {reason}"
        options = _options((_OPT_COMMENT, text.encode()), (_ISB_IFDROP, struct.pack("<Q", count)))
        return start + _block(_STATISTICS_BLOCK, struct.pack("<III", 0, 0, 0) + options)

    def flush(self) -> None:
        """Flush the file's buffer."""
        self._file.flush()


def _interface_block(name: str) -> bytes:
    options = _options((_IF_NAME, name.encode()), (_IF_TSRESOL, bytes([_NANOSECONDS])))
    return _block(_INTERFACE_BLOCK, struct.pack("<HHI", _LINKTYPE_RAW, 0, 0) + options)


def _secrets_block(lines: Sequence[str]) -> bytes:
    data = "".join(f"{line}\n" for line in lines).encode()
    return _block(_SECRETS_BLOCK, struct.pack("<II", _TLS_KEY_LOG, len(data)) + _padded(data))


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


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


_SECTION_HEADER: Final = _block(
    _SECTION_HEADER_BLOCK,
    struct.pack("<IHHq", _BYTE_ORDER_MAGIC, 1, 0, -1) + _options((_SHB_USERAPPL, b"bothends trace")),
)
