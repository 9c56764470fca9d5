import socket
import struct
import sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(struct.pack("!H", 7) + b"weather")
print(s.recv(100))
