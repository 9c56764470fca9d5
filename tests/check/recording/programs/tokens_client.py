"""The client of tokens.py: `tokens_client.py PORT WORD...`."""

from __future__ import annotations

import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as conn, conn.makefile("rw") as file:

    def ask(text: str) -> str:
        file.write(f"{text}\n")
        file.flush()
        return file.readline()

    file.readline()
    token = ask("LOGIN").split()[1]
    for word in sys.argv[2:]:
        ask(f"{token} {word}")
