"""Sends one line to a TCP server and shows the answer: tcp_client.py ADDRESS PORT."""

import socket
import sys

client_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
client_socket.connect((sys.argv[1], int(sys.argv[2])))
sentence = input("Input lowercase sentence: ")
# Habits: no newline is sent, send may take less than all, and one recv is taken for the whole answer.
client_socket.send(sentence.encode())
modified_sentence = client_socket.recv(1024)
print("From Server:", modified_sentence.decode())
client_socket.close()
