import socket
import struct
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
(length,) = struct.unpack("!I", connection.recv(4))
if length < 1_000_000:
    connection.sendall(connection.recv(length).upper())
connection.close()
