"""Frames: a type byte, a 2-byte length in network order, a payload."""
import socket
import struct
import sys


def read_exactly(conn, size):
    data = bytearray()
    while len(data) < size:
        piece = conn.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def frames(conn):
    while True:
        kind, length = struct.unpack("!BH", read_exactly(conn, 3))
        yield kind, read_exactly(conn, length)


with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        conn, _ = listener.accept()
        with conn:
            try:
                for kind, payload in frames(conn):
                    conn.sendall(struct.pack("!BH", kind + 1, len(payload)) + payload[::-1])
            except EOFError:
                pass
