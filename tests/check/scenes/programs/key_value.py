"""A key-value server: `key_value.py PORT [MISTAKE]`. Messages follow their length, two bytes, little endian.

Requests: 'S' key NUL value, answered by 'K' and four bytes that identify the entry; 'G' key, answered by 'V'
value, or 'N'; 'I' and four bytes, answered by 'V' value.
"""

from __future__ import annotations

import random
import socketserver
import sys

MISTAKE = sys.argv[2] if len(sys.argv) > 2 else ""
values: dict[bytes, bytes] = {}
identifiers: dict[bytes, bytes] = {}


def answer(request: bytes, stored: dict[bytes, bytes]) -> bytes:
    kind, rest = request[:1], request[1:]
    if kind == b"S":
        key, _, value = rest.partition(b"\0")
        if MISTAKE == "first-key-only" and stored:
            key = next(iter(stored))
        if MISTAKE != "never-stores" and not (MISTAKE == "keeps-the-first-value" and key in stored):
            stored[key] = value
        identifier = b"same" if MISTAKE == "same-identifier" else random.randbytes(4)
        identifiers[identifier] = key
        return b"K" + identifier
    if kind == b"I":
        rest = identifiers.get(rest, b"") if MISTAKE != "forgets-identifiers" else b""
    return b"V" + stored[rest] if rest in stored else b"N"


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        stored = {} if MISTAKE == "forgets" else values
        while len(header := self.rfile.read(2)) == 2:
            request = self.rfile.read(int.from_bytes(header, "little"))
            reply = answer(request, stored)
            order = "big" if MISTAKE == "network-order" else "little"
            self.wfile.write(len(reply).to_bytes(2, order) + reply)  # type: ignore[arg-type]


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
