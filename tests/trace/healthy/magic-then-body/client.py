import socket
import sys

for text in ("SAVE the whales\n", "SAVE " + "x" * 90_000, "LOAD"):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        s.sendall(text.encode())
        s.shutdown(socket.SHUT_WR)
        print(s.makefile().readline())
