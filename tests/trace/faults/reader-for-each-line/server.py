import socket
import sys


def next_line(connection):
    return connection.makefile("r", encoding="utf-8").readline().strip()


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    a, b = int(next_line(connection)), int(next_line(connection))
    connection.sendall(f"{a + b}\n".encode())
    connection.close()
