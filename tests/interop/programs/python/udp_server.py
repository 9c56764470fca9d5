"""Sends each datagram back in capitals. Prints its port."""

import socket

server_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server_socket.bind(("", 0))
print("port", server_socket.getsockname()[1], flush=True)
while True:
    # Habit: what is longer than 2,048 bytes is cut off without a word.
    message, client_address = server_socket.recvfrom(2048)
    server_socket.sendto(message.decode().upper().encode(), client_address)
