import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
stream = connection.makefile("rwb")
while line := stream.readline():
    name = stream.read(int(line))
    stream.write(b"hello " + name + b"\n")
    stream.flush()
