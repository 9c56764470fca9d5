"""A chat server: `chat.py PORT [MISTAKE]`.

JOIN NAME joins (WELCOME NAME, or TAKEN), QUIT leaves (BYE), any other line goes to all others as NAME: LINE.
"""

from __future__ import annotations

import selectors
import socket
import struct
import sys

MISTAKE = sys.argv[2] if len(sys.argv) > 2 else ""
names: dict[socket.socket, str] = {}
buffers: dict[socket.socket, bytes] = {}
taken: set[str] = set()
selector = selectors.DefaultSelector()


def send(conn: socket.socket, text: str) -> None:
    end = "" if MISTAKE == "no-newline" else "\n"
    conn.sendall((text + end).encode())


def leave(conn: socket.socket) -> None:
    name = names.pop(conn, "")
    if MISTAKE != "keeps-names":
        taken.discard(name)
    buffers.pop(conn, None)
    selector.unregister(conn)
    conn.close()


def handle(conn: socket.socket, line: str) -> None:
    command, _, rest = line.partition(" ")
    if command == "JOIN":
        if rest in taken and MISTAKE != "no-names":
            send(conn, "TAKEN")
            return
        taken.add(rest)
        names[conn] = rest
        send(conn, f"WELCOME {rest}")
    elif command == "QUIT":
        send(conn, "BYE")
        if MISTAKE == "resets":
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if MISTAKE != "stays-open":
            leave(conn)
    elif conn in names:
        others = [each for each in names if each is not conn]
        receivers = {
            "to-sender-only": [conn],
            "to-all": [conn, *others],
            "to-first": others[:1],
            "twice": others * 2,
        }
        for each in receivers.get(MISTAKE, others):
            send(each, f"{names[conn]}: {line}")


def receive(conn: socket.socket) -> None:
    try:
        data = conn.recv(4096)
    except ConnectionResetError:
        if MISTAKE == "dies-of-reset":
            raise
        data = b""
    if not data:
        leave(conn)
        return
    if MISTAKE == "no-buffer":  # for a line that comes in several pieces
        for text in data.decode().splitlines():
            handle(conn, text)
        return
    buffers[conn] += data
    while conn in buffers and b"\n" in buffers[conn]:
        line, buffers[conn] = buffers[conn].split(b"\n", 1)
        if MISTAKE == "first-line-only":
            buffers[conn] = b""
        handle(conn, line.decode())


def main() -> None:
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=100)
    print("listening")
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                conn, _ = listener.accept()
                buffers[conn] = b""
                selector.register(conn, selectors.EVENT_READ)
            else:
                receive(key.fileobj)  # type: ignore[arg-type]


main()
