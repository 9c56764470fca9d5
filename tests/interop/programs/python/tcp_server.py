"""Capitalises what one recv gives, for one client after another. Prints its port."""

import socket

server_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
server_socket.bind(("", 0))
server_socket.listen(1)
print("port", server_socket.getsockname()[1], flush=True)
while True:
    connection_socket, addr = server_socket.accept()
    # Habits: one recv is taken for the whole message; bytes that are no text end the server.
    sentence = connection_socket.recv(1024).decode()
    capitalized_sentence = sentence.upper()
    connection_socket.send(capitalized_sentence.encode())
    connection_socket.close()
