"""The receiver of stop-and-wait (`arq.py PORT [MISTAKE] 2`) and sliding window ARQ (`8`), go-back-N.

Mistakes: keeps-twice, no-second-ack, no-checksum, no-number, next-number, acks-any, no-modulo.
"""

from __future__ import annotations

import sys

from bothends.checksum import checksum
from tests.check.contracts.programs.serving import MISTAKE, bind_udp

MODULUS = int(sys.argv[-1])
sock = bind_udp()
texts: list[str] = []
expected = 0
while True:
    data, peer = sock.recvfrom(2048)
    word, *rest = data.decode().split(" ", 3)
    reply = ""
    if word == "START":
        texts, expected, reply = [], 0, "READY"
    elif word == "READ":
        reply = " ".join(["TEXT", *texts])
    elif word == "DATA":
        number, given, text = int(rest[0]), int(rest[1], 16), rest[2]
        if checksum(text.encode()) != given and MISTAKE != "no-checksum":
            continue
        if number == expected or MISTAKE == "no-number":
            texts.append(text)
            expected = number + 1 if MISTAKE == "no-modulo" else (number + 1) % MODULUS
            last = number
        else:
            if MISTAKE == "no-second-ack":
                continue
            if MISTAKE == "keeps-twice":
                texts.append(text)
            last = number if MISTAKE == "acks-any" else (expected - 1) % MODULUS
        reply = f"ACK {(last + 1) % MODULUS if MISTAKE == 'next-number' else last}"
    if reply:
        sock.sendto(reply.encode(), peer)
