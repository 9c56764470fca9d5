"""Packet capture on the interfaces of this machine, parsed down to TCP and UDP.

    Capture        an AF_PACKET socket (packet(7)): needs CAP_NET_RAW
    parse_packet   parses an IP packet into a `Packet`; pure

What the kernel does, measured on Linux 6.18, and what follows:

1. Each packet on the loopback interface is captured twice, when it is sent and when it arrives. The first
   copy is kept, because it is closer to the call that caused it.
2. SO_TIMESTAMPNS gives wall-clock time, as strace does, so both can be compared. But the kernel enables
   packet timestamps with a delay, and until then the timestamp is the time of the read. So a capture waits
   for a packet whose timestamp precedes the read (`_wait_for_kernel_timestamps`).
3. Segmentation is left to the interface (TSO), and the loopback interface omits it: segments of up to 64 KiB
   are real packets there, and each is one `Packet`.
4. IPv6 may have extension headers before TCP's, and IPv4 may have options. Of a fragmented packet only the
   first fragment has the ports; the others are dropped.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import ipaddress
import math
import socket
import struct
import time
from collections.abc import Collection, Iterable
from typing import Final, Literal, NamedTuple, Protocol

from bothends.errors import Unavailable
from bothends.trace.model import DATA_LIMIT, Packet, SocketAddress

MAX_HEADER_BYTES: Final = 140  # IPv6 with an extension header, and TCP with all its options
_RECV_SIZE: Final = DATA_LIMIT + MAX_HEADER_BYTES
_RECV_BUFFER: Final = 256 << 20  # bytes: the kernel charges over 64 KiB for a loopback segment

READ_BATCH: Final = 20_000  # packets

_CAUGHT_UP: Final = 1 << 63  # later than any time
_PROBE_DELAY: Final = 4_000_000  # nanoseconds: far more than a read takes
_PROBE_TIMEOUT: Final = 2.0  # seconds

_ETH_P_ALL: Final = 0x0003
_SO_ATTACH_FILTER: Final = 26
_INSTRUCTION: Final = struct.Struct("@HBBI")  # struct sock_filter
# What a filter can load besides a packet's bytes (linux/filter.h, SKF_AD_OFF): its direction, its interface.
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
_FLAG_NAMES: Final = [
    tuple(name for bit, name in enumerate(FLAGS) if bits >> bit & 1) for bits in range(1 << len(FLAGS))
]
_TCP, _UDP = 6, 17
# RFC 8200, section 4: extension headers, which hold the type of the next header. So does the fragment header.
_EXTENSIONS: Final = frozenset({0, 43, 60})
_FRAGMENT: Final = 44


def parse_packet(raw: bytes, number: int = 0, at: int = 0, interface: str = "") -> Packet | None:
    """Parse an IP packet. Returns None if it is neither TCP nor UDP, or cut off within their header."""
    found = _parse_ip(raw)
    if found is None:
        return None
    protocol, source, destination, start, length = found
    body = raw[start:length]
    if protocol == _UDP and len(body) >= 8:
        here, there, size = struct.unpack_from("!HHH", body)
        data = body[8:] if size < 8 else body[8:size]
        return Packet(
            number, at, "udp", _address(source, here), _address(destination, there),
            max(size, 8) - 8, data[:DATA_LIMIT], interface=interface,
            raw=raw[: DATA_LIMIT + MAX_HEADER_BYTES], length=length,
        )  # fmt: skip
    if protocol == _TCP and len(body) >= 20:
        here, there, sequence, acknowledged, offset, bits, window = struct.unpack_from("!HHIIBBH", body)
        header = (offset >> 4) * 4
        return Packet(
            number, at, "tcp", _address(source, here), _address(destination, there),
            max(length - start - header, 0), body[header : header + DATA_LIMIT],
            _FLAG_NAMES[bits],
            sequence, acknowledged, window,
            interface=interface, raw=raw[: DATA_LIMIT + MAX_HEADER_BYTES], length=length,
        )  # fmt: skip
    return None


def _parse_ip(raw: bytes) -> tuple[int, str, str, int, int] | None:
    """Return protocol, source, destination, the offset of the protocol's header, and the packet's length."""
    if len(raw) >= 20 and raw[0] >> 4 == 4:
        length = int.from_bytes(raw[2:4], "big") or len(raw)
        if int.from_bytes(raw[6:8], "big") & 0x1FFF:
            return None  # a later fragment
        return raw[9], _ip_text(raw[12:16]), _ip_text(raw[16:20]), (raw[0] & 15) * 4, length
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
        return following, _ip_text(raw[8:24]), _ip_text(raw[24:40]), start, length
    return None


@functools.lru_cache(maxsize=4096)
def _ip_text(packed: bytes) -> str:
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


@functools.lru_cache(maxsize=4096)
def _address(host: str, port: int) -> SocketAddress:
    return SocketAddress(host, port)


# Opcodes of classic BPF, by their mnemonics (linux/filter.h).
_LD_W, _LD_H, _LD_B = 0x20, 0x28, 0x30  # load from an offset
_LD_H_IND, _LD_B_IND = 0x48, 0x50  # load from an offset relative to X
_LDX_MSH, _LDX_IMM = 0xB1, 0x01  # set X: to the length of the IPv4 header, to a number
_JEQ, _JSET, _RSH, _RET = 0x15, 0x45, 0x74, 0x06
_KEEP: Final = (_RET, 0, 0, DATA_LIMIT + MAX_HEADER_BYTES)
_DROP: Final = (_RET, 0, 0, 0)


def _bpf_program(loopback: int, ports: Collection[int] | None) -> list[tuple[int, int, int, int]]:
    """Return a classic BPF program (Linux: networking/filter.rst).

    An instruction is: code, jump if true, jump if false, operand. The program returns how many bytes of a
    packet to capture. With `ports` it captures only packets from or to one of them, and SYNs.
    """
    match_ports = [_KEEP] if ports is None else _match_ports(ports)
    ipv6 = [(_LDX_IMM, 0, 0, 40), *match_ports]
    ipv4 = [
        (_LD_B, 0, 0, 9),  # the protocol
        (_JEQ, 2, 0, _TCP),
        (_JEQ, 1, 0, _UDP),
        _DROP,
        (_LDX_MSH, 0, 0, 0),
        *match_ports,
    ]
    return [
        (_LD_W, 0, 0, _AD_IFINDEX),
        (_JEQ, 0, 3, loopback),
        (_LD_W, 0, 0, _AD_PKTTYPE),
        (_JEQ, 1, 0, _PACKET_OUTGOING),
        _DROP,
        (_LD_B, 0, 0, 0),  # the IP version
        (_RSH, 0, 0, 4),
        (_JEQ, 0, len(ipv4), 4) if len(ipv4) < 256 else (_JEQ, 1, 0, 4),
        *([(0x05, 0, 0, len(ipv4))] if len(ipv4) >= 256 else []),  # conditional jumps have 8-bit offsets
        *ipv4,
        (_JEQ, 1, 0, 6),
        _DROP,
        *ipv6,
    ]


def _match_ports(ports: Collection[int]) -> list[tuple[int, int, int, int]]:
    """Return code that keeps packets from or to these ports, and SYNs. X is the offset of TCP or UDP."""
    program = []
    for offset in (0, 2):
        program.append((_LD_H_IND, 0, 0, offset))
        for port in ports:
            program += [(_JEQ, 0, 1, port), _KEEP]
    return [*program, (_LD_B_IND, 0, 0, 13), (_JSET, 0, 1, 2), _KEEP, _DROP]


class TransitEvent(NamedTuple):
    """An event of a packet on a wire: it was sent to the host `reaches`, it arrived, or `toxic` dropped it.

    `direction` and `number` identify the packet. A number of 0 means that the wire synthesized it.
    `arrived_as`: the IP packet, if it arrived with other addresses (NAT).
    """

    event: Literal["sent", "lost", "arrived"]
    direction: tuple[int, int]
    number: int
    reaches: str
    toxic: str = ""
    arrived_as: bytes = b""


class RawPacket(NamedTuple):
    """A captured packet, not parsed yet: on a busy machine most packets are not relevant."""

    at: int
    interface: str
    data: bytes
    transit: TransitEvent | None = None

    @property
    def ports(self) -> tuple[int, int] | None:
        """Source and destination port, or None if the packet has unusual headers."""
        data = self.data
        start = (data[0] & 15) * 4 if data[:1] and data[0] >> 4 == 4 else 40
        if len(data) < start + 4 or (start == 40 and data[6] not in (_TCP, _UDP)):
            return None
        return data[start] << 8 | data[start + 1], data[start + 2] << 8 | data[start + 3]

    def packet(self, number: int) -> Packet | None:
        """Parse it. Returns None for other protocols."""
        return parse_packet(self.data, number, self.at, self.interface)


class PacketSource(Protocol):
    """A source of packets: `Capture`, or a wire."""

    def fileno(self) -> int:
        """Return the descriptor to wait for. It is readable if there are packets."""

    def read(self) -> list[RawPacket]:
        """Return the packets that have been captured since the last call. Never blocks."""

    def count_dropped(self) -> int:
        """Return how many packets the buffer had no room for, so far."""

    def filter_ports(self, ports: Collection[int] | None) -> None:
        """Drop packets from and to other ports, if that saves work."""

    def has_more(self) -> bool:
        """Return whether more packets will come. Called after the clients, and the servers, have exited."""

    def prepare(self, words: Iterable[str], /) -> None:
        """Prepare for a program that is about to start, by its command line."""

    def look(self, pids: Iterable[int], started: Iterable[int], /) -> float:
        """Look in which network namespaces these processes are; `started` have started another program.

        Returns: seconds until the next look.
        """

    def close(self) -> None:
        """Release the source."""


class Capture:
    """Captures the TCP and UDP packets on this machine's interfaces. Close it, or use it in a with statement.

    Args:
        interface: the name of one interface; all by default.
        namespace: the name of this thread's network namespace, if it is not that of the process. Then there
            is another capture already.

    Raises:
        Unavailable: missing privilege (CAP_NET_RAW), or no such interface.
    """

    def __init__(self, interface: str = "", *, namespace: str = "") -> None:
        self.dropped = 0
        self._suffix = f" in {namespace}" if namespace else ""
        self._loopback = socket.if_nametoindex("lo")
        self._read_up_to = _CAUGHT_UP  # the timestamp of the last packet read, if more wait to be read
        self._checkpoint = 0
        try:
            # SOCK_DGRAM removes the link-layer header, so that packets of all interfaces start with the IP
            # header.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        except OSError as error:
            raise Unavailable("see", "packets", error.errno or 0, "run as root") from error
        try:
            self._socket.setblocking(False)
            with contextlib.suppress(OSError):  # needs CAP_NET_ADMIN; otherwise the system's limit applies
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECV_BUFFER)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self.filter_ports(None)
            if not namespace:  # they are enabled for all at once
                self._wait_for_kernel_timestamps()
            if interface:
                self._socket.bind((interface, _ETH_P_ALL))
        except OSError as error:
            self._socket.close()
            raise Unavailable(
                "see", f"packets of {interface}", error.errno or 0, "ip link lists them"
            ) from error

    def filter_ports(self, ports: Collection[int] | None) -> None:
        """Make the kernel drop other protocols and the second copies of loopback packets.

        With `ports` it also drops packets from and to other ports, except SYNs: on a busy machine, nearly
        all.
        """
        program = b"".join(_INSTRUCTION.pack(*each) for each in _bpf_program(self._loopback, ports))
        memory = ctypes.create_string_buffer(program)
        length = len(program) // _INSTRUCTION.size
        self._socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", length, ctypes.addressof(memory))
        )

    def _wait_for_kernel_timestamps(self) -> None:
        """Wait until the kernel timestamps packets: send one, read it later, and compare the times."""
        deadline = time.monotonic() + _PROBE_TIMEOUT
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            address = probe.getsockname()
            while time.monotonic() < deadline:
                probe.sendto(b"", address)
                time.sleep(_PROBE_DELAY / 1e9)
                now = time.time_ns()
                if any(
                    raw.ports == (address[1], address[1]) and raw.at < now - _PROBE_DELAY // 2
                    for raw in self.read()
                ):
                    return

    def fileno(self) -> int:
        """Return the descriptor to wait for. It is readable if there are packets."""
        return self._socket.fileno()

    def read(self) -> list[RawPacket]:
        """Return captured packets, `READ_BATCH` at most. Never blocks."""
        found: list[RawPacket] = []
        receive = self._socket.recvmsg
        while len(found) < READ_BATCH:
            try:
                data, ancillary, _, address = receive(_RECV_SIZE, 64)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # ENETDOWN: one interface is down; packets of the others follow
                continue
            for level, kind, stamp in ancillary:
                if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(stamp) >= _TIMESPEC.size:
                    seconds, nanoseconds = _TIMESPEC.unpack_from(stamp)
                    interface = address[0] + self._suffix if self._suffix else address[0]
                    found.append(RawPacket(seconds * 1_000_000_000 + nanoseconds, interface, data))
        self._read_up_to = found[-1].at if len(found) >= READ_BATCH else _CAUGHT_UP
        return found

    def count_dropped(self) -> int:
        """Return how many packets the kernel had no room for, so far."""
        received = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self.dropped += struct.unpack("II", received)[1]  # reading resets the kernel's counter (packet(7))
        return self.dropped

    def has_more(self) -> bool:
        """Return whether packets wait to be read that are older than the first call of this method.

        On a busy machine packets are read seconds after they were captured. After a False, the next call
        starts again from its own time.
        """
        self._checkpoint = self._checkpoint or time.time_ns()
        is_behind = self._read_up_to < self._checkpoint
        self._checkpoint = self._checkpoint if is_behind else 0
        return is_behind

    def prepare(self, _words: Iterable[str], /) -> None:
        """Do nothing."""

    def look(self, _pids: Iterable[int], _started: Iterable[int], /) -> float:
        """Return infinity: a capture stays in its namespace."""
        return math.inf

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
