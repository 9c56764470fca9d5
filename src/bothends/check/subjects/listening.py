"""Find where a program under test listens: its sockets in the socket table of its network namespace.

Connecting to see whether a server is ready would disturb it: the first client of a server that serves one
client at a time would be the probe, and a server that takes a silent client's EOF for an error would exit
before it is judged.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from bothends.endpoints import Endpoint
from bothends.socket_table import SocketEntry, proc_net
from bothends.socket_table.owners import process_sockets

_TYPES = {"tcp": "stream", "udp": "dgram", "unix": "stream", "unix+dgram": "dgram"}


def listeners(pids: Iterable[int], transport: str) -> list[Endpoint]:
    """Return the endpoints on which processes listen over "tcp", "udp", "unix" or "unix+dgram".

    A socket bound to every address is reported at 127.0.0.1: "::" takes IPv4 connections as well unless
    IPV6_V6ONLY is set (ipv6(7)).
    """
    pids = list(pids)
    inodes = set(_socket_inodes(pids))
    if not inodes:
        return []
    return [
        _endpoint(transport, entry)
        for entry in _entries(pids, transport.partition("+")[0])
        if entry.inode in inodes and entry.type == _TYPES[transport] and _is_server_socket(entry)
    ]


def _socket_inodes(pids: Iterable[int]) -> Iterator[int]:
    for pid in pids:
        with suppress(OSError):
            yield from (inode for _, inode in process_sockets(pid))


def _entries(pids: Iterable[int], protocol: str) -> Iterator[SocketEntry]:
    """The sockets of the namespace the processes are in, as the first that still exists sees it."""
    for pid in pids:
        folder = Path(f"/proc/{pid}/net")
        if folder.is_dir():
            return proc_net.read(folder, protocols=(protocol,))
    return iter(())


def _is_server_socket(entry: SocketEntry) -> bool:
    """Whether it listens, or is a datagram socket that is bound and not connected."""
    if entry.type == "stream":
        return entry.state == "LISTEN"
    return entry.state == "UNCONNECTED" and bool(
        entry.local.host if entry.family == "unix" else entry.local.port
    )


def _endpoint(transport: str, entry: SocketEntry) -> Endpoint:
    if entry.family == "unix":
        return Endpoint(transport, path=entry.local.host)
    address = ipaddress.ip_address(entry.local.host.partition("%")[0])
    if address.is_unspecified:
        host = "127.0.0.1"
    elif isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        host = str(address.ipv4_mapped)  # Java binds IPv4 addresses on IPv6 sockets
    else:
        host = entry.local.host
    return Endpoint(transport, host=host, port=entry.local.port)
