"""A client of the key-value store, like redis-cli: `key_value_resp_client.py PORT [MISTAKE]`.

Mistakes: inline, first-line-only, one-recv, ends-at-error.
"""

from __future__ import annotations

import socket
import sys
from typing import BinaryIO

MISTAKE = sys.argv[2] if len(sys.argv) > 2 else ""


def read_reply(stream: BinaryIO) -> bytes:
    """Return what a reply says."""
    line = stream.readline()
    kind, text = line[:1], line[1:].rstrip(b"\r\n")
    if kind == b"-" and MISTAKE == "ends-at-error":
        sys.exit(f"error: {text.decode()}")
    if kind != b"$" or text == b"-1":
        return text
    if MISTAKE == "first-line-only":
        return stream.readline().rstrip(b"\r\n")
    return stream.read(int(text) + 2)[:-2]


with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5) as conn:
    stream = conn.makefile("rb")
    for line in sys.stdin:
        words = line.encode().split()
        command = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
        conn.sendall(line.encode() if MISTAKE == "inline" else command)
        if MISTAKE == "one-recv":
            reply = conn.recv(1024).removesuffix(b"\r\n").rpartition(b"\n")[2].lstrip(b"+:-")
        else:
            reply = read_reply(stream)
        sys.stdout.buffer.write(reply + b"\n")
