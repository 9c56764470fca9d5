import sys
import socket, threading
def backend(w):
    while True:
        c, _ = w.accept()
        with c: c.sendall(b"HELLO " + c.recv(100)); c.recv(1)
def relay(a, b):
    while d := a.recv(4096): b.sendall(d)
    b.shutdown(socket.SHUT_WR)
def proxy(c):
    u = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    relay(c, u); relay(u, c); c.close(); u.close()
w = socket.create_server(("127.0.0.1", int(sys.argv[1])))   # first, so that the client gets this port
threading.Thread(target=backend, args=(socket.create_server(("127.0.0.1", int(sys.argv[2]))),), daemon=True).start()
while True:
    c, _ = w.accept(); threading.Thread(target=proxy, args=(c,), daemon=True).start()
