"""Answers in capitals, and never closes, not even when the client has finished. Prints its port."""

import socket

server_socket = socket.socket()
server_socket.bind(("", 0))
server_socket.listen(5)
print("port", server_socket.getsockname()[1], flush=True)
kept = []
while True:
    connection, address = server_socket.accept()
    connection.send(connection.recv(1024).upper())
    kept.append(connection)
