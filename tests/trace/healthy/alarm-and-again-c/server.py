import sys
import socket, time
w = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    c, _ = w.accept()
    with c:
        q = c.recv(100); time.sleep(1.2); c.sendall(b"result " + q)
