import sys
import socket
w = socket.create_server(("127.0.0.1", int(sys.argv[1]))); w.settimeout(.5)
served = []
while True:
    c, a = w.accept()
    with c:
        c.settimeout(None)
        d = c.recv(100); served.append(d); c.sendall(b"stored %d" % len(served))
