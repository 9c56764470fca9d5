"""Listens to what a server says of its own accord, then says something: hello_client.py ADDRESS PORT."""

import socket
import sys

s = socket.socket()
s.connect((sys.argv[1], int(sys.argv[2])))
s.sendall(b"hello from client")
# Habit: it reads until the server closes, and a server that doesn't would hang it.
s.shutdown(socket.SHUT_WR)
while data := s.recv(1024):
    print(data.decode(), end="")
s.close()
