"""Reads what a client says, and hangs up without a word. Prints its port."""

import socket

server_socket = socket.socket()
server_socket.bind(("", 0))
server_socket.listen(5)
print("port", server_socket.getsockname()[1], flush=True)
while True:
    connection, address = server_socket.accept()
    connection.recv(1024)
    connection.close()
