import socket
import sys
import time

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for line in ["first", "second", "third"]:
    s.sendall(line.encode() + b"\n")
    reply = s.recv(1024)
    print("reply:", reply.decode())
    time.sleep(0.2)  # as if it was typed
