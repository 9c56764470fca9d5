"""What the servers have in common: `python -m PROGRAM PORT [MISTAKE]`, and a thread for each connection."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable

PORT = int(sys.argv[1])
_WORD = sys.argv[2] if len(sys.argv) > 2 else ""
MISTAKE = "" if "/" in _WORD or _WORD.isdigit() else _WORD


class Stream:
    """The input of a connection, by lines and by sizes; with the mistake `one-recv`, recv() is a line."""

    def __init__(self, conn: socket.socket) -> None:
        self.conn = conn
        self.buffer = b""

    def fill(self) -> None:
        data = self.conn.recv(65536)
        if not data:
            raise EOFError
        self.buffer = data if MISTAKE == "drops-rest" else self.buffer + data

    def line(self, end: bytes = b"\r\n") -> bytes:
        while end not in self.buffer:
            if MISTAKE == "one-recv" and self.buffer:
                line, self.buffer = self.buffer, b""
                return line
            self.fill()
        line, _, self.buffer = self.buffer.partition(end)
        if MISTAKE == "first-only":
            self.buffer = b""
        return line

    def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            self.fill()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data


def listen() -> socket.socket:
    return socket.create_server(("127.0.0.1", PORT), backlog=64)


def serve(handle: Callable[[Stream], None]) -> None:
    """Call `handle` for each connection in a thread; one at a time with the mistake `one-client`."""
    listener = listen()

    def run(conn: socket.socket) -> None:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with conn:
            try:
                handle(Stream(conn))
            except EOFError:
                pass
            except OSError:
                if MISTAKE == "dies-of-reset":
                    import os

                    os._exit(1)

    while True:
        conn, _ = listener.accept()
        if MISTAKE == "one-client":
            run(conn)
        else:
            threading.Thread(target=run, args=[conn], daemon=True).start()


def bind_udp() -> socket.socket:
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", PORT))
    return sock
