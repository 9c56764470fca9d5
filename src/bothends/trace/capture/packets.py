"""Packets off the wire: what an interface carried, read down to TCP and UDP.

    Capture   an AF_PACKET socket (packet(7)): needs CAP_NET_RAW
    parse     an IP packet to a `Packet`; pure

Facts, measured on Linux 6.18:

1. Each packet on the loopback interface comes twice, as it leaves and as it arrives: the first is kept, since
   it is nearer to the call that caused it.
2. SO_TIMESTAMPNS gives wall-clock time, as strace does, so both can be compared.
   But a kernel begins to take the time of packets a while after it is asked to, and until then the time is
   that of our reading: so a capture waits until it has seen one that was older (`_wait_for_kernel_timestamps`).
3. Segmentation is left to the interface, and the loopback leaves it out: segments of up to 64 KiB are
   real there, and one `Packet` each.
4. Both IPv4 and IPv6 may have headers between IP's and TCP's; what is fragmented shows ports in its first
   fragment only, and the others are left out.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import socket
import struct
import time
from collections.abc import Collection
from typing import Final, Literal, NamedTuple, Protocol

from bothends.errors import Unavailable
from bothends.trace.model import DATA_LIMIT, Packet, SocketAddress

MAX_HEADER_BYTES: Final = 140  # bytes: IPv6 with an extension, and TCP with all its options, fit
_RECV_SIZE: Final = DATA_LIMIT + MAX_HEADER_BYTES
_RECV_BUFFER: Final = (
    256 << 20
)  # bytes at most in the kernel: a segment of the loopback counts 64 KiB, and more

READ_BATCH: Final = 20_000  # packets

_CAUGHT_UP: Final = 1 << 63  # later than any time
_PROBE_DELAY: Final = 4_000_000  # nanoseconds: far more than reading takes
_PROBE_TIMEOUT: Final = 2.0  # seconds

_ETH_P_ALL: Final = 0x0003
_SO_ATTACH_FILTER: Final = 26
_INSTRUCTION: Final = struct.Struct("@HBBI")  # struct sock_filter
# What a filter may ask besides a packet's bytes (linux/filter.h, SKF_AD_OFF): its way, its interface.
_AD_PKTTYPE: Final = 0xFFFFF000 + 4
_AD_IFINDEX: Final = 0xFFFFF000 + 8
_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
_PACKET_OUTGOING: Final = 4
_SO_RCVBUFFORCE: Final = 33
_SO_TIMESTAMPNS: Final = 35
_TIMESPEC: Final = struct.Struct("@ll")

# RFC 9293, section 3.1, from the lowest bit.
FLAGS: Final = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
_TCP, _UDP = 6, 17
# RFC 8200, section 4: headers that say which comes next. The fragment header is one of them.
_EXTENSIONS: Final = frozenset({0, 43, 60})
_FRAGMENT: Final = 44


def parse_packet(raw: bytes, number: int = 0, at: int = 0, interface: str = "") -> Packet | None:
    """An IP packet, or None for what is neither TCP nor UDP, or is cut off before their ports."""
    found = _parse_ip(raw)
    if found is None:
        return None
    protocol, source, destination, start, length = found
    body = raw[start:length]
    if protocol == _UDP and len(body) >= 8:
        here, there, size = struct.unpack_from("!HHH", body)
        data = body[8:] if size < 8 else body[8:size]
        return Packet(
            number, at, "udp", SocketAddress(source, here), SocketAddress(destination, there),
            max(size, 8) - 8, data[:DATA_LIMIT], interface=interface, raw=raw[: DATA_LIMIT + MAX_HEADER_BYTES], length=length,
        )  # fmt: skip
    if protocol == _TCP and len(body) >= 20:
        here, there, sequence, acknowledged, offset, bits, window = struct.unpack_from("!HHIIBBH", body)
        header = (offset >> 4) * 4
        return Packet(
            number, at, "tcp", SocketAddress(source, here), SocketAddress(destination, there),
            max(length - start - header, 0), body[header : header + DATA_LIMIT],
            tuple(name for bit, name in enumerate(FLAGS) if bits >> bit & 1),
            sequence, acknowledged, window,
            interface=interface, raw=raw[: DATA_LIMIT + MAX_HEADER_BYTES], length=length,
        )  # fmt: skip
    return None


def _parse_ip(raw: bytes) -> tuple[int, str, str, int, int] | None:
    """Protocol, both addresses, where its header begins, and the length of the whole."""
    if len(raw) >= 20 and raw[0] >> 4 == 4:
        length = int.from_bytes(raw[2:4], "big") or len(raw)
        if int.from_bytes(raw[6:8], "big") & 0x1FFF:
            return None  # a later fragment
        source4, destination4 = ipaddress.ip_address(raw[12:16]), ipaddress.ip_address(raw[16:20])
        return raw[9], str(source4), str(destination4), (raw[0] & 15) * 4, length
    if len(raw) >= 40 and raw[0] >> 4 == 6:
        length = int.from_bytes(raw[4:6], "big") + 40
        following, start = raw[6], 40
        while following in _EXTENSIONS or following == _FRAGMENT:
            if len(raw) < start + 8:
                return None
            if following == _FRAGMENT and int.from_bytes(raw[start + 2 : start + 4], "big") >> 3:
                return None
            step = 8 if following == _FRAGMENT else (raw[start + 1] + 1) * 8
            following, start = raw[start], start + step
        source, destination = ipaddress.ip_address(raw[8:24]), ipaddress.ip_address(raw[24:40])
        return following, _unmap_ipv4(source), _unmap_ipv4(destination), start, length
    return None


def _unmap_ipv4(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


_LD_W, _LD_H, _LD_B = 0x20, 0x28, 0x30  # load from an offset
_LD_H_IND, _LD_B_IND = 0x48, 0x50  # load from an offset behind X
_LDX_MSH, _LDX_IMM = 0xB1, 0x01  # X: the length of IPv4's header, a number
_JEQ, _JSET, _RSH, _RET = 0x15, 0x45, 0x74, 0x06
_KEEP: Final = (_RET, 0, 0, DATA_LIMIT + MAX_HEADER_BYTES)
_DROP: Final = (_RET, 0, 0, 0)


def _bpf_program(loopback: int, ports: Collection[int] | None) -> list[tuple[int, int, int, int]]:
    """A classic BPF program (Linux: networking/filter.rst): code, jump if true, jump if false, operand.

    What it returns is how many bytes of a packet are kept. With `ports`, only what has one of them at an end,
    and handshakes.
    """
    judged = [_KEEP] if ports is None else _match_ports(ports)
    ipv6 = [(_LDX_IMM, 0, 0, 40), *judged]
    ipv4 = [
        (_LD_B, 0, 0, 9),  # the protocol
        (_JEQ, 2, 0, _TCP),
        (_JEQ, 1, 0, _UDP),
        _DROP,
        (_LDX_MSH, 0, 0, 0),
        *judged,
    ]
    return [
        (_LD_W, 0, 0, _AD_IFINDEX),
        (_JEQ, 0, 3, loopback),
        (_LD_W, 0, 0, _AD_PKTTYPE),
        (_JEQ, 1, 0, _PACKET_OUTGOING),
        _DROP,
        (_LD_B, 0, 0, 0),  # the version of IP
        (_RSH, 0, 0, 4),
        (_JEQ, 0, len(ipv4), 4) if len(ipv4) < 256 else (_JEQ, 1, 0, 4),
        *([(0x05, 0, 0, len(ipv4))] if len(ipv4) >= 256 else []),  # a jump may be longer without a condition
        *ipv4,
        (_JEQ, 1, 0, 6),
        _DROP,
        *ipv6,
    ]


def _match_ports(ports: Collection[int]) -> list[tuple[int, int, int, int]]:
    """Keep what has one of these ports at an end, or begins a connection. X is where TCP or UDP begins."""
    program = []
    for offset in (0, 2):
        program.append((_LD_H_IND, 0, 0, offset))
        for port in ports:
            program += [(_JEQ, 0, 1, port), _KEEP]
    return [*program, (_LD_B_IND, 0, 0, 13), (_JSET, 0, 1, 2), _KEEP, _DROP]


class TransitEvent(NamedTuple):
    """Where a packet was seen on a wire of ours: it left for the host that it `reaches`, arrived, or was lost
    to a toxic. `way` and `number` tell which packet; a number of 0 says that the wire has made it.
    """

    event: Literal["sent", "lost", "arrived"]
    direction: tuple[int, int]
    number: int
    reaches: str
    toxic: str = ""


class RawPacket(NamedTuple):
    """A packet as it was captured: most of a busy machine's are nobody's here, and are read no further."""

    at: int
    interface: str
    data: bytes
    transit: TransitEvent | None = None

    @property
    def ports(self) -> tuple[int, int] | None:
        """Source and destination port, where they stand where they most often do; None elsewhere."""
        data = self.data
        start = (data[0] & 15) * 4 if data[:1] and data[0] >> 4 == 4 else 40
        if len(data) < start + 4 or (start == 40 and data[6] not in (_TCP, _UDP)):
            return None
        return data[start] << 8 | data[start + 1], data[start + 2] << 8 | data[start + 3]

    def packet(self, number: int) -> Packet | None:
        """The same, read."""
        return parse_packet(self.data, number, self.at, self.interface)


class PacketSource(Protocol):
    """Where packets come from: `Capture`, or a wire."""

    def fileno(self) -> int:
        """The descriptor that turns readable when there are packets."""

    def read(self) -> list[RawPacket]:
        """The packets that have come. Never blocks."""

    def count_dropped(self) -> int:
        """How many there was no room for, so far."""

    def filter_ports(self, ports: Collection[int] | None) -> None:
        """Leave out what has none of these ports, where that saves anything."""

    def has_more(self) -> bool:
        """Whether packets are known to be under way: asked when the last client has ended, and the last
        server.
        """

    def close(self) -> None:
        """Let go of it."""


class Capture:
    """Every packet of TCP and UDP that this machine's interfaces carry, from now on. Close it, or use it
    as a context.

    Args:
        interface: one interface's name; all of them by default.

    Raises:
        Unavailable: no privilege, or no such interface.
    """

    def __init__(self, interface: str = "") -> None:
        self.dropped = 0
        self._read_up_to = _CAUGHT_UP  # when the last packet that was read passed, while more wait to be read
        self._checkpoint = 0
        try:
            # SOCK_DGRAM: without the link's own header, so that IP begins the packet on every interface.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        except OSError as error:
            raise Unavailable(
                "see", "packets", error.errno or 0,
                f"run as root, or: sudo setcap cap_net_raw+ep {os.path.realpath('/proc/self/exe')}",
            ) from error  # fmt: skip
        try:
            self._socket.setblocking(False)
            with contextlib.suppress(OSError):  # CAP_NET_ADMIN; without it the system's own limit holds
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECV_BUFFER)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self.filter_ports(None)
            self._wait_for_kernel_timestamps()
            if interface:
                self._socket.bind((interface, _ETH_P_ALL))
        except OSError as error:
            self._socket.close()
            raise Unavailable(
                "see", f"packets of {interface}", error.errno or 0, "ip link lists them"
            ) from error

    def filter_ports(self, ports: Collection[int] | None) -> None:
        """Let the kernel leave out what is no TCP or UDP, and the loopback's second copies; and, if `ports`
        says so, what has none of these ports: on a busy machine that is nearly everything. Handshakes pass.
        """
        loopback = socket.if_nametoindex("lo")
        program = b"".join(_INSTRUCTION.pack(*each) for each in _bpf_program(loopback, ports))
        memory = ctypes.create_string_buffer(program)
        length = len(program) // _INSTRUCTION.size
        self._socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", length, ctypes.addressof(memory))
        )

    def _wait_for_kernel_timestamps(self) -> None:
        """Wait until packets have the time at which they passed: try one, and read it a while later."""
        deadline = time.monotonic() + _PROBE_TIMEOUT
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            ours = probe.getsockname()
            while time.monotonic() < deadline:
                probe.sendto(b"", ours)
                time.sleep(_PROBE_DELAY / 1e9)
                now = time.time_ns()
                if any(
                    raw.ports == (ours[1], ours[1]) and raw.at < now - _PROBE_DELAY // 2
                    for raw in self.read()
                ):
                    return

    def fileno(self) -> int:
        """The descriptor that turns readable when there are packets."""
        return self._socket.fileno()

    def read(self) -> list[RawPacket]:
        """The packets that have come, `AT_ONCE` at most. Never blocks."""
        found: list[RawPacket] = []
        receive = self._socket.recvmsg
        while len(found) < READ_BATCH:
            try:
                data, ancillary, _, address = receive(_RECV_SIZE, 64)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # ENETDOWN: an interface has gone, others go on
                continue
            for level, kind, stamp in ancillary:
                if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(stamp) >= _TIMESPEC.size:
                    seconds, nanoseconds = _TIMESPEC.unpack_from(stamp)
                    found.append(RawPacket(seconds * 1_000_000_000 + nanoseconds, address[0], data))
        self._read_up_to = found[-1].at if len(found) >= READ_BATCH else _CAUGHT_UP
        return found

    def count_dropped(self) -> int:
        """How many packets the kernel had no room for, so far."""
        received = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self.dropped += struct.unpack("II", received)[1]  # reading it sets the kernel's count to 0
        return self.dropped

    def has_more(self) -> bool:
        """Whether packets wait to be read that passed before this was first asked: on a busy machine they
        may be seconds old when they are read. Once they are read, it may be asked anew.
        """
        self._checkpoint = self._checkpoint or time.time_ns()
        is_behind = self._read_up_to < self._checkpoint
        self._checkpoint = self._checkpoint if is_behind else 0
        return is_behind

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
