import socket
import sys

stream = socket.create_connection(("127.0.0.1", int(sys.argv[1]))).makefile("rw")
for line in ("add 3", "add 4", "total"):
    print(line, file=stream, flush=True)
    print(stream.readline(), end="")
