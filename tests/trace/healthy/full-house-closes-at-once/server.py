import socket
import sys
import time

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
late = time.monotonic() + 0.5
while True:
    connection, _ = listener.accept()
    with connection:
        if time.monotonic() < late:
            continue  # not ready: the load balancer asks again
        connection.sendall(b"hello " + connection.recv(100))
