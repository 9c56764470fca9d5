"""Says hello to whoever calls, and hangs up. Prints its port."""

import socket

s = socket.socket()
s.bind(("", 0))
s.listen(5)
print("port", s.getsockname()[1], flush=True)
while True:
    c, addr = s.accept()
    print("Got connection from", addr, flush=True)
    print("client says:", c.recv(1024).decode(), flush=True)
    c.send(b"back to ya client")
    c.close()
