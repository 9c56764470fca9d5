import socket
import struct
import sys


def exactly(s, size):
    data = b""
    while len(data) < size:
        piece = s.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    with connection:
        kind, length = struct.unpack("<HI", exactly(connection, 6))
        connection.sendall(exactly(connection, length).upper())
