import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, address = listener.accept()
    with connection:
        connection.sendall(connection.recv(1000))
    listener.close()
