"""Upper-case service, a thread for each client."""
import socket
import sys
from threading import Thread


def handle(conn, addr):
    with conn:
        while data := conn.recv(1024):
            conn.sendall(data.upper())


with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    for _ in range(2):
        worker = Thread(target=handle, args=listener.accept())
        worker.start()
        worker.join()
