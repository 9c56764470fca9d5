"""The packets of a run, against what tshark captures of it: packet for packet."""

from __future__ import annotations

import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.interop.running import Running
from tests.tools import find_tool, needs_tool
from tests.trace.running import has_packets, packets, python, traced

pytestmark = [needs_tool("strace"), needs_tool("tshark")]

# Both ends over TCP and UDP; the address is nobody else's, so that all its packets are ours.
ADDRESS = "127.83.11.7"
CONVERSATION = f"""
from socket import *
s = create_server(("{ADDRESS}", 0))
c = create_connection(s.getsockname(), source_address=("{ADDRESS}", 0))
d, _ = s.accept()
for size in (1, 10, 100_000):
    c.sendall(b"x" * size)
    while size:
        size -= len(d.recv(1 << 20))
d.send(b"done")
c.recv(100)
c.close()
d.recv(1)
d.close()
u = socket(AF_INET, SOCK_DGRAM)
u.bind(("{ADDRESS}", 0))
v = socket(AF_INET, SOCK_DGRAM)
v.bind(("{ADDRESS}", 0))
v.sendto(b"datagram", u.getsockname())
data, address = u.recvfrom(100)
u.sendto(b"", address)
v.recvfrom(100)
"""


def test_every_packet_is_there_and_no_other(tmp_path: Path) -> None:
    if not has_packets():
        pytest.skip("packets can't be captured here")
    file, tshark = tmp_path / "theirs.pcapng", str(find_tool("tshark"))
    capture = [tshark, "-i", "lo", "-B", "64", "-f", f"host {ADDRESS}", "-w", str(file), "-P", "-l"]
    with Running(capture) as theirs, socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind((ADDRESS, 0))
        mine = probe.getsockname()[1]

        knocking = threading.Event()

        def knock() -> None:  # until it is seen: then the capture has begun
            while not knocking.wait(0.05):
                probe.sendto(b"are you there?", (ADDRESS, mine))

        thread = threading.Thread(target=knock)
        thread.start()
        try:
            theirs.text(rb"UDP")
        finally:
            knocking.set()
            thread.join()
        trace = traced(python(CONVERSATION))
        theirs.process.terminate()
        theirs.end()
    fields = ("ip.src", "tcp.srcport", "udp.srcport", "tcp.seq_raw", "tcp.flags", "tcp.len", "udp.length")
    command = [tshark, "-r", str(file), "-T", "fields", "-E", "separator=|"]
    command += [word for each in fields for word in ("-e", each)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seen = []
    for _, tcp, udp, sequence, flags, tcp_size, udp_size in (line.split("|") for line in shown.splitlines()):
        if udp == str(mine):
            continue
        seen.append(
            (int(tcp or udp), int(sequence or 0), int(flags or "0", 16), int(tcp_size or int(udp_size) - 8))
        )
    bits = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16}
    ours = [
        (each.source.port, each.sequence, sum(bits[flag] for flag in each.flags), each.size)
        for each in packets(trace)
    ]
    assert ours == seen
    assert len(ours) > 12
