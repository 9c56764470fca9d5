import os
import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
child = os.fork()
while data := connection.recv(200):
    connection.sendall(data.upper())
if child:
    os.wait()
