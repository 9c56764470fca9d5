import socket
import struct
import sys

# The length counts the type, which the reader takes with the header: 8 bytes.
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
with connection:
    while header := connection.recv(8, socket.MSG_WAITALL):
        size, kind = struct.unpack("<II", header)
        body = connection.recv(size - 4, socket.MSG_WAITALL)
        if kind == 2:
            connection.sendall(struct.pack("<II", 4 + len(body), 3) + body)
