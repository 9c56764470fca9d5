"""The socket table as /proc/PID/net has it: proc(5). For whom sock_diag does not tell.

1. It is of the network namespace of that process, so it shows namespaces that we are not in.
2. It has no round trips, no congestion windows, no peers of UNIX sockets and no backlogs.
3. An abstract name's NULs are written as `@`, and a path may hold a line's end: a line that does not look
   like one is left out, which is all that can be done.
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
    """Yield every socket of these protocols that a folder lists. A file that can't be read is left out."""
    for stem in _INET_FILES:
        for name in (stem, f"{stem}6") if stem in protocols else ():
            with contextlib.suppress(OSError):
                yield from parse_inet(name, (folder / name).read_text(encoding="ascii"))
    if "unix" in protocols:
        with contextlib.suppress(OSError):
            yield from parse_unix((folder / "unix").read_bytes())


def parse_inet(name: str, text: str) -> Iterator[SocketEntry]:
    """The lines of `tcp`, `tcp6`, `udp`, ... The first is their head."""
    kind, protocol = _INET_FILES[name.removesuffix("6")]
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10:
            continue
        local, peer = _address(fields[1]), _address(fields[2])
        shown = protocol
        if kind == "raw":  # where others have a port, a raw socket has its protocol
            shown = f"raw {PROTOCOLS.get(local.port, str(local.port))}"
            local, peer = EntryAddress(local.host), EntryAddress(peer.host)
        send_queue, recv_queue = (int(digits, 16) for digits in fields[4].split(":"))
        yield SocketEntry(
            family="inet6" if name.endswith("6") else "inet",
            type=kind,
            protocol=shown,
            state=state_name(protocol, int(fields[3], 16)),
            local=local,
            peer=peer,
            inode=int(fields[9]),
            recv_queue=recv_queue,
            send_queue=send_queue,
            uid=int(fields[7]),
        )


def parse_unix(data: bytes) -> Iterator[SocketEntry]:
    """The lines of `unix`."""
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
    """`0100007F:1F90`: the address as words of 32 bits in the machine's order, the port as a number."""
    digits, _, port = text.partition(":")
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return EntryAddress(str(ipaddress.ip_address(packed)), int(port, 16))
