"""A client of a key-value server with lines: `key_value_client.py PORT [MISTAKE]`.

It logs in, and repeats its token in every request that it reads.
"""

from __future__ import annotations

import socket
import sys

MISTAKE = sys.argv[2] if len(sys.argv) > 2 else ""


def main() -> int:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as conn, conn.makefile("rw") as stream:
        print("HELLO", file=stream, flush=True)
        greeting, _, token = stream.readline().rstrip("\n").partition(" ")
        if MISTAKE == "wrong-token":
            token = token[:-1]
        if MISTAKE != "shows-nothing":
            print(greeting, token)
        for line in sys.stdin:
            print(f"{token} {line}", end="", file=stream, flush=True)
            reply = conn.recv(100).decode() if MISTAKE == "one-recv" else stream.readline()
            if not reply.endswith("\n"):
                return 4
            if MISTAKE != "shows-nothing":
                print(reply, end="")
        if MISTAKE == "stays":
            stream.readline()
    return 3 if MISTAKE == "fails" else 0


sys.exit(main())
