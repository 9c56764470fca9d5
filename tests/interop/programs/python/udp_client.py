"""Sends one line as a datagram and shows the answer: udp_client.py ADDRESS PORT."""

import socket
import sys

client_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
message = input("Input lowercase sentence: ")
client_socket.sendto(message.encode(), (sys.argv[1], int(sys.argv[2])))
# Habit: it waits for ever if either datagram is lost.
modified_message, server_address = client_socket.recvfrom(2048)
print(modified_message.decode())
client_socket.close()
