import socket
import sys

words = ["pear", "apple", "fig", "lemon"]
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(f"{len(words)}\n".encode())
    for w in words:
        s.sendall(w.encode() + b"\n")
    f = s.makefile("r")
    for line in f:
        print(line, end="")
