import socket
import struct
import sys


def read_exactly(connection, size):
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    connection, _ = listener.accept()
    for _ in range(2):
        (length,) = struct.unpack("!I", read_exactly(connection, 4))
        print(read_exactly(connection, length))
    connection.sendall(b"ok")
