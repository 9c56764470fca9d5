"""A DNS server for two names, over UDP and TCP.

Mistakes: no-id, no-qr, little-endian, no-tcp, no-length, case, no-nxdomain, dies-of-garbage, no-question.
"""

from __future__ import annotations

import os
import struct
import threading

from tests.check.contracts.programs.serving import MISTAKE, Stream, bind_udp, serve

ADDRESSES = {b"www.check.example": bytes([192, 0, 2, 7]), b"mail.check.example": bytes([192, 0, 2, 8])}


def read_question(query: bytes) -> tuple[bytes, int]:
    labels, at = [], 12
    while size := query[at]:
        if size > 63 or at + size >= len(query):
            raise ValueError("no name")
        labels.append(query[at + 1 : at + 1 + size])
        at += size + 1
    return b".".join(labels), at + 5


def answer(query: bytes) -> bytes | None:
    try:
        number, flags, *_ = struct.unpack("!6H", query[:12])
        name, end = read_question(query)
    except (struct.error, IndexError, ValueError):
        if MISTAKE == "dies-of-garbage":
            os._exit(1)
        return None
    address = ADDRESSES.get(name if MISTAKE == "case" else name.lower())
    known = address is not None or MISTAKE == "no-nxdomain"
    flags = (0 if MISTAKE == "no-qr" else 0x8000) | flags & 0x0100 | (0x0080 if known else 0x0083)
    order = "<" if MISTAKE == "little-endian" else "!"
    has_question = MISTAKE != "no-question"
    counts = (0 if MISTAKE == "no-id" else number, flags, int(has_question), int(known), 0, 0)
    reply = struct.pack(order + "6H", *counts) + (query[12:end] if has_question else b"")
    if known:
        reply += struct.pack(order + "HHHIH", 0xC00C, 1, 1, 60, 4) + (address or bytes(4))
    return reply


def handle(stream: Stream) -> None:
    while True:
        reply = answer(stream.exactly(int.from_bytes(stream.exactly(2), "big")))
        if reply is not None:
            stream.conn.sendall((b"" if MISTAKE == "no-length" else len(reply).to_bytes(2, "big")) + reply)


def serve_udp() -> None:
    while True:
        query, peer = sock.recvfrom(4096)
        reply = answer(query)
        if reply is not None:
            sock.sendto(reply, peer)


sock = bind_udp()
if MISTAKE == "no-tcp":
    serve_udp()
threading.Thread(target=serve_udp, daemon=True).start()
serve(handle)
