import sys
import socket

visitors = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(6)]
for n, s in enumerate(visitors, 1):
    line = s.makefile("r").readline()
    print("visitor", n, "->", line.strip() or "hung up on us")
    s.close()
