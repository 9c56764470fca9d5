import socket
import sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for line in ["first", "second", "third"]:
    s.sendall(line.encode() + b"\n")
    reply = s.recv(1024)
    print("reply:", reply.decode())
