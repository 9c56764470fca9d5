import json
import select
import socket
import sys

listener = socket.create_server(("", int(sys.argv[1])), backlog=128)
buffers = {}
nicks = {}


def say(packet):
    data = json.dumps(packet).encode()
    for member in list(nicks):
        try:
            member.sendall(len(data).to_bytes(2, "big") + data)
        except OSError:
            pass


def leave(conn):
    del buffers[conn]
    conn.close()
    if conn in nicks:
        say({"type": "leave", "nick": nicks.pop(conn)})


def handle(conn, packet):
    if packet["type"] == "hello":
        nicks[conn] = packet["nick"]
        say({"type": "join", "nick": packet["nick"]})
    elif packet["type"] == "chat":
        say({"type": "chat", "nick": nicks[conn], "message": packet["message"]})


while True:
    for ready in select.select([listener, *buffers], [], [])[0]:
        if ready is listener:
            buffers[listener.accept()[0]] = b""
            continue
        try:
            data = ready.recv(4096)
        except OSError:
            data = b""
        if not data:
            leave(ready)
            continue
        buffers[ready] += data
        while len(buffers[ready]) >= 2:
            size = int.from_bytes(buffers[ready][:2], "big")
            if len(buffers[ready]) < size + 2:
                break
            packet, buffers[ready] = buffers[ready][2 : size + 2], buffers[ready][size + 2 :]
            handle(ready, json.loads(packet))
