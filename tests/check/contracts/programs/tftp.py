"""A TFTP server that reads files: `tftp.py PORT [MISTAKE] FOLDER`.

Mistakes: one-block, little-endian, no-empty-block, no-error, no-timeout, one-transfer, does-not-wait.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
from pathlib import Path

from tests.check.contracts.programs.serving import MISTAKE, bind_udp

FOLDER = Path(sys.argv[-1])
ORDER = "<" if MISTAKE == "little-endian" else "!"


def send_file(path: Path, peer: tuple[str, int]) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(peer)
        if not path.is_file():
            if MISTAKE != "no-error":
                sock.send(struct.pack("!HH", 5, 1) + b"File not found\0")
            return
        data = path.read_bytes()
        blocks = [data[at : at + 512] for at in range(0, len(data) + 1, 512)]
        if MISTAKE == "no-empty-block":
            blocks = [block for block in blocks if block] or [b""]
        for number, block in enumerate(blocks[:1] if MISTAKE == "one-block" else blocks, start=1):
            packet = struct.pack(ORDER + "HH", 3, number) + block
            for _ in range(5):
                sock.send(packet)
                if MISTAKE == "does-not-wait":
                    break
                sock.settimeout(60.0 if MISTAKE == "no-timeout" else 1.0)
                try:
                    if sock.recv(516) == struct.pack("!HH", 4, number):
                        break
                except TimeoutError:
                    continue


listener = bind_udp()
while True:
    request, client = listener.recvfrom(516)
    name, mode = request[2:].split(b"\0")[:2]
    arguments = (FOLDER / name.decode(), client)
    if MISTAKE == "one-transfer":
        send_file(*arguments)
    else:
        threading.Thread(target=send_file, args=arguments, daemon=True).start()
