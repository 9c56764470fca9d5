"""The sender of both kinds of ARQ, go-back-N with timeouts: `arq_sender.py PORT WINDOW [MISTAKE]`.

Mistakes: no-timeout, any-ack, no-window, wrong-checksum, starts-again.
"""

from __future__ import annotations

import socket
import sys

from bothends.checksum import checksum

WINDOW = int(sys.argv[2])
MISTAKE = sys.argv[3] if len(sys.argv) > 3 else ""
MODULUS = 2 if WINDOW == 1 else 8
sock = socket.socket(type=socket.SOCK_DGRAM)
sock.connect(("127.0.0.1", int(sys.argv[1])))


def ask(text: str) -> str:
    for _ in range(8):
        sock.send(text.encode())
        sock.settimeout(2.0)
        try:
            return sock.recv(2048).decode()
        except TimeoutError:
            continue
    sys.exit("no reply")


def send(number: int) -> None:
    text = texts[number]
    total = checksum(text.encode()) ^ (MISTAKE == "wrong-checksum")
    sock.send(f"DATA {number % MODULUS} {total:04x} {text}".encode())


def unacknowledged(reply: str) -> int:
    """Return how many packets of the window an acknowledgment covers."""
    word, _, number = reply.partition(" ")
    if word != "ACK":
        return 0
    if MISTAKE == "any-ack":
        return 1
    covered = (int(number) - base) % MODULUS + 1
    return covered if covered <= sent - base else 0


texts = sys.stdin.read().splitlines()
assert ask("START") == "READY"
base = sent = 0
window = len(texts) if MISTAKE == "no-window" else WINDOW
while base < len(texts):
    while sent < min(len(texts), base + window):
        send(sent)
        sent += 1
    sock.settimeout(60.0 if MISTAKE == "no-timeout" else 0.4)
    try:
        base += unacknowledged(sock.recv(2048).decode())
    except TimeoutError:
        sent = 0 if MISTAKE == "starts-again" else base
while not ask("READ").startswith("TEXT"):
    pass
