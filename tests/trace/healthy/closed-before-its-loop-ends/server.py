import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
try:
    while data := connection.recv(1000):
        connection.sendall(data)
        if data == b"quit":
            connection.close()
except OSError:
    pass  # the connection was closed
