import socket
import struct
import sys
import time

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
with connection:
    for payload in b"", b"news", b"":
        connection.sendall(struct.pack("!I", len(payload)))
        connection.sendall(payload)
        time.sleep(1.2)
    connection.sendall(struct.pack("!I", 3))
    connection.sendall(b"end")
