"""The socket table from /proc/PID/net (proc(5)), for network namespaces that sock_diag does not reach.

1. It shows the network namespace of that process, so it reaches namespaces other than our own.
2. It has no round-trip times, congestion windows, peers of UNIX sockets or backlogs.
3. NULs in abstract names are written as `@`, and a path may contain a newline. Lines that do not match the
   format are skipped, because they cannot be parsed reliably.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from bothends.escaping import escape
from bothends.socket_table.entry import PROTOCOLS, TYPES, EntryAddress, SocketEntry, state_name

_INET_FILES: Final = {
    "tcp": ("stream", "tcp"),
    "udp": ("dgram", "udp"),
    "udplite": ("dgram", "udplite"),
    "icmp": ("dgram", "icmp"),
    "raw": ("raw", "raw"),
}
_UNIX_LINE: Final = re.compile(
    rb"[0-9a-f]{8,16}: [0-9A-F]{8} [0-9A-F]{8} ([0-9A-F]{8}) ([0-9A-F]{4}) ([0-9A-F]{2}) +(\d+)(?: (.*))?"
)
_SO_ACCEPTCON: Final = 0x10000  # __SO_ACCEPTCON, linux/net.h
_UNIX_STATES: Final = {1: "UNCONNECTED", 2: "CONNECTING", 3: "CONNECTED"}  # linux/net.h


def read(
    folder: Path = Path("/proc/self/net"), protocols: Collection[str] = (*_INET_FILES, "unix")
) -> Iterator[SocketEntry]:
    """Yield every socket of these protocols in a /proc/PID/net folder. Unreadable files are skipped."""
    for stem in _INET_FILES:
        for name in (stem, f"{stem}6") if stem in protocols else ():
            with contextlib.suppress(OSError):
                yield from parse_inet(name, (folder / name).read_text(encoding="ascii"))
    if "unix" in protocols:
        with contextlib.suppress(OSError):
            yield from parse_unix((folder / "unix").read_bytes())


def parse_inet(name: str, text: str) -> Iterator[SocketEntry]:
    """Parse the text of `tcp`, `tcp6`, `udp`, ..., whose first line is a heading."""
    kind, protocol = _INET_FILES[name.removesuffix("6")]
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10:
            continue
        local, peer = _address(fields[1]), _address(fields[2])
        label = protocol
        if kind == "raw":  # raw sockets have their protocol in place of the port
            label = f"raw {PROTOCOLS.get(local.port, str(local.port))}"
            local, peer = EntryAddress(local.host), EntryAddress(peer.host)
        send_queue, recv_queue = (int(digits, 16) for digits in fields[4].split(":"))
        yield SocketEntry(
            family="inet6" if name.endswith("6") else "inet",
            type=kind,
            protocol=label,
            state=state_name(protocol, int(fields[3], 16)),
            local=local,
            peer=peer,
            inode=int(fields[9]),
            recv_queue=recv_queue,
            send_queue=send_queue,
            uid=int(fields[7]),
        )


def parse_unix(data: bytes) -> Iterator[SocketEntry]:
    """Parse the contents of `unix`."""
    for line in data.split(b"\n"):
        if found := _UNIX_LINE.fullmatch(line):
            flags, kind, state, inode, path = found.groups()
            listening = int(flags, 16) & _SO_ACCEPTCON
            yield SocketEntry(
                family="unix",
                type=TYPES.get(int(kind, 16), str(int(kind, 16))),
                protocol="",
                state="LISTEN" if listening else _UNIX_STATES.get(int(state, 16), str(int(state, 16))),
                local=EntryAddress(escape(path or b"")),
                peer=EntryAddress(),
                inode=int(inode),
            )


def _address(text: str) -> EntryAddress:
    """Parse `0100007F:1F90`: an address as 32-bit words in host byte order, and a port as a number."""
    digits, _, port = text.partition(":")
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return EntryAddress(str(ipaddress.ip_address(packed)), int(port, 16))
