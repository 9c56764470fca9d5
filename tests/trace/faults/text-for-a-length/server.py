import socket
import struct
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
with connection:
    (length,) = struct.unpack("!I", connection.recv(4))
    if length > 65536:
        sys.exit("message too long")
    connection.sendall(connection.recv(length))
