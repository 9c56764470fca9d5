"""Where processes listen, as /proc says (proc(5)): how a server's readiness and its port are learnt.

To connect and see would be no good: the first client of a server that serves one at a time would be ours, and
a server that takes a silent one's EOF for an error would be dead before it is judged.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from bothends.endpoints import Endpoint

_LISTEN: Final = "0A"  # TCP_LISTEN (include/net/tcp_states.h)
_UNCONNECTED: Final = "07"  # TCP_CLOSE: what an unconnected UDP socket is in
_SO_ACCEPTCON: Final = 0x10000  # __SO_ACCEPTCON (include/uapi/linux/net.h)


def socket_inodes(pids: Iterable[int]) -> set[str]:
    """The inodes of all sockets that these processes hold."""
    found = set()
    for pid in pids:
        with suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
                with suppress(OSError):
                    name = os.readlink(f"/proc/{pid}/fd/{number}")  # noqa: PTH115
                    if name.startswith("socket:["):
                        found.add(name[8:-1])
    return found


def listeners(pids: Iterable[int], transport: str) -> list[Endpoint]:
    """Where these processes listen by this transport ("tcp", "udp", "unix", "unix+dgram")."""
    pids = list(pids)
    inodes = socket_inodes(pids)
    if not inodes or not pids:
        return []
    if transport.startswith("unix"):
        return list(_unix(pids, transport, inodes))
    return [each for table in (transport, f"{transport}6") for each in _inet(pids, table, inodes)]


def _inet(pids: Sequence[int], table: str, inodes: set[str]) -> Iterator[Endpoint]:
    wanted = _LISTEN if table.startswith("tcp") else _UNCONNECTED
    for line in _proc_net_lines(pids, table):
        fields = line.split()
        if len(fields) > 9 and fields[3] == wanted and fields[9] in inodes:
            digits, _, port = fields[1].partition(":")
            address = _address(digits)
            # What is bound to every address is asked over loopback; "::" takes IPv4 as well, as a rule.
            host = "127.0.0.1" if address.is_unspecified else str(address)
            if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
                host = str(address.ipv4_mapped)
            if int(port, 16):
                yield Endpoint(table.rstrip("6"), host=host, port=int(port, 16))


def _unix(pids: Sequence[int], transport: str, inodes: set[str]) -> Iterator[Endpoint]:
    for line in _proc_net_lines(pids, "unix"):
        fields = line.split(maxsplit=7)
        if len(fields) < 8 or fields[6] not in inodes:
            continue
        accepts = int(fields[3], 16) & _SO_ACCEPTCON
        if (fields[4] == "0001" and accepts) if transport == "unix" else fields[4] == "0002":
            yield Endpoint(transport, path=fields[7].rstrip("\n"))


def _proc_net_lines(pids: Sequence[int], table: str) -> list[str]:
    """A table of the network that these processes are in, as the first that still lives sees it."""
    for pid in pids:
        with suppress(OSError):
            path = Path(f"/proc/{pid}/net/{table}")
            return path.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    return []


def _address(digits: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The kernel writes each 32-bit word of an address in the machine's own byte order."""
    data = bytes.fromhex(digits)
    words = b"".join(data[at : at + 4][::-1] for at in range(0, len(data), 4))
    return ipaddress.ip_address(words)
