"""A thread for each client; between two connections the listener rests, so that a crowd comes in slowly."""
import socket
import sys
import threading
import time


def serve(conn):
    with conn:
        while data := conn.recv(1024):
            conn.sendall(data)


with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    for _ in range(2):
        conn, _ = listener.accept()
        threading.Thread(target=serve, args=(conn,)).start()
        time.sleep(1.2)
