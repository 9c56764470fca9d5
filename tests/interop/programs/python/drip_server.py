"""Answers in capitals, each byte with a send of its own, and closes. Prints its port."""

import socket

server_socket = socket.socket()
server_socket.bind(("", 0))
server_socket.listen(5)
print("port", server_socket.getsockname()[1], flush=True)
while True:
    connection, address = server_socket.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # so that each goes out on its own
    for byte in connection.recv(1024).upper():
        connection.send(bytes([byte]))
    connection.close()
