"""A fake host that replies to echo requests incorrectly, with the kernel's own replies disabled.

    python icmp_host.py VERSION KIND COMMAND...

Start it in a separate network namespace. It runs the command with the address of the host as the last
argument, and exits with its status. KIND is "ping" (ping sockets are permitted) or "raw".
Replies by probe number: 2 is sent twice, 3 after 4, 5 with a byte changed; 6 is an ICMP error, 7 has none.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

from bothends.checksum import checksum
from bothends.client import icmp

SIOCSIFFLAGS = 0x8914  # netdevice(7)
IFF_UP = 1


def bring_up_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def host_unreachable(version: int, request: bytes) -> bytes:
    """Build a "host unreachable" error that quotes the request after its IP header."""
    if version == 4:
        loopback = socket.inet_aton("127.0.0.1")
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(request), 1, 0, 64, 1, 0) + loopback * 2
        error = struct.pack("!BBHI", 3, 1, 0, 0) + header + request
        return error[:2] + struct.pack("!H", checksum(error)) + error[4:]
    loopback = socket.inet_pton(socket.AF_INET6, "::1")
    header = struct.pack("!IHBB", 6 << 28, len(request), 58, 64) + loopback * 2
    return struct.pack("!BBHI", 1, 3, 0, 0) + header + request


def answer_echo_requests(version: int, sock: socket.socket, address: str) -> None:
    delayed = b""
    while True:
        packet = sock.recv(65535)
        request = (icmp.strip_ip_header(packet) or b"") if version == 4 else packet
        echo = icmp.parse_request(version, request)
        if echo is None:
            continue
        reply = icmp.build_reply(version, echo)
        changed = echo.payload[:40] + b"!" + echo.payload[41:]
        messages = [reply]
        match echo.sequence:
            case 2:
                messages = [reply, reply]
            case 3:
                delayed, messages = reply, []
            case 4:
                messages = [reply, delayed]
            case 5:
                messages = [icmp.build_reply(version, icmp.IcmpEcho(echo.identifier, 5, changed))]
            case 6:
                messages = [host_unreachable(version, request)]
            case 7:
                messages = []
        for message in messages:
            sock.sendto(message, (address, 0))


def main() -> int:
    version, kind, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    bring_up_loopback()
    settings = Path("/proc/sys/net")
    if kind == "ping":
        (settings / "ipv4/ping_group_range").write_text("0 0")
    family, protocol, address = (
        (socket.AF_INET, socket.IPPROTO_ICMP, "127.0.0.1")
        if version == 4
        else (socket.AF_INET6, socket.IPPROTO_ICMPV6, "::1")
    )
    ignore_all = "ipv4/icmp_echo_ignore_all" if version == 4 else "ipv6/icmp/echo_ignore_all"
    (settings / ignore_all).write_text("1")
    with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
        threading.Thread(target=answer_echo_requests, args=(version, sock, address), daemon=True).start()
        return subprocess.run([*command, address], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
